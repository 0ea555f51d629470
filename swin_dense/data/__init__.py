"""Data: checks before a run, and the generated sample data set."""
