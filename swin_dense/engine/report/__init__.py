"""From saved predictions to the report of a run, and of two."""
