"""OpenAPI documents of a logical cluster: what ``kubectl explain`` and clients' validation read."""
