"""Metrics of an evaluated part: pure functions of predictions and truths."""
