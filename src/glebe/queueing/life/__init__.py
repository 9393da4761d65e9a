"""The life of a Workload once it is there: a table of steps, evictions, checks, notices, nodes that fail."""
