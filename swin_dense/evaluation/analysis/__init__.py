"""What saved predictions tell without the model: curves, thresholds, errors and their cost."""
