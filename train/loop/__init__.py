"""The training loop: steps, evaluations, snapshots, the best weights at its end."""
