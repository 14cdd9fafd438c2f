"""Which images of a store belong together, and so on one side of the split."""
