"""`python -m benchmarks train`: stage 2 against its limits and against its peers."""
