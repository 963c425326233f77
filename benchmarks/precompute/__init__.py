"""`python -m benchmarks precompute`: Stage 1 against its peers and its floor."""
