"""What follows from the settings of a training, and the settings of other labs by name."""
