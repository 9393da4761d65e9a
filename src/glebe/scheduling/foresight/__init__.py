"""Who starts when: run times as distributions, the cycle run forward, promises kept honest."""
