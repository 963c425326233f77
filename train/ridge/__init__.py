"""Closed-form heads over tables."""
