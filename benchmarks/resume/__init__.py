"""`python -m benchmarks resume`: Kills and stops, and whether anything came of them."""
