"""The judging tasks: a file each for its question and its figures; the prompts are in prompts/."""
