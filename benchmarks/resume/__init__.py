"""`python -m benchmarks resume`: what kills and stops change, which ought to be nothing."""
