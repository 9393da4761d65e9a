"""The whole platform in one process under a virtual clock, with faults, checked after every write.

``harness.simulate(seed)`` builds the embedded platform on a memory store, feeds it a random load, injects faults
between any two steps and checks the invariants of :mod:`invariants` after every committed write. Everything derives
from the seed, so a failure replays from its number alone.
"""
