"""`python -m benchmarks train`: Stage 2 against its peers and its limits."""
