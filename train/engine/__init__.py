"""The step engine: model, forward, loss, backward, update. It knows nothing of experiments."""
