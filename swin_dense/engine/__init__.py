"""Runs: configs, training, evaluation, what fits them to the machine."""
