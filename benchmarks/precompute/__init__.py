"""`python -m benchmarks precompute`: stage 1 against its peers and its floor."""
