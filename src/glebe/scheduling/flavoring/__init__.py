"""Which flavors a workload gets: the choices of each pod set, and the search over them."""
