"""Services' addresses: which cluster IPs and node ports are taken, and by whom."""
