"""Before a large run: how many bytes, steps and hours it takes, and which road is the shorter."""
