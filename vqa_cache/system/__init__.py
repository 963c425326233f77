"""What the cache asks of the machine: durable writes, devices, signals, memory, locks."""
