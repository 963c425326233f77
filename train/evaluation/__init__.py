"""A trained model over a part: figures, predictions, baselines."""
