"""From the cache to a batch: splits joined with rows, vocabulary, tables in memory, order."""
