"""Which nodes the pods of a gang get: the fleet as arrays, domains of topologies, slices, balance, replacement."""
