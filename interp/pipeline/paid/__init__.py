"""Around paid questions: price and abilities of the model, the cap, the live view, the dry run."""
