"""Experiments: what a file may say, where files are, what makes a run the same run."""
