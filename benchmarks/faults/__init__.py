"""`python -m benchmarks faults`: stage 1 and its caches under every fault that a machine has."""
