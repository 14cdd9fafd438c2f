"""What is kept while images stream by."""
