"""Looking after a cache: verify, explain, import, export, copy, collect garbage."""
