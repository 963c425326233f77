"""Tables larger than memory: blocks of rows, windows of blocks, reading ahead."""
