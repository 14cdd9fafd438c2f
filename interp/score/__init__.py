"""Label + held-out images -> how well the label predicts."""
