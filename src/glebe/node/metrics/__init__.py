"""What nodes, pods and containers use: samples, rates, and where they come from (``metrics.k8s.io``)."""
