"""``/metrics``: upstream's names where they exist, and a number of series that no client and no tenant can raise."""
