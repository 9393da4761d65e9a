"""One queue over all logical clusters: which of them it serves, and what a tenant may see and write."""
