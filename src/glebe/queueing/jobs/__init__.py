"""Jobs of every kind and their Workloads: from a job to its Workload, starting, stopping, elastic jobs."""
