"""Every figure that the README quotes comes from here: `python -m benchmarks NAME [--json]`."""
