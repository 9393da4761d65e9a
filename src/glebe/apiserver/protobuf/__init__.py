"""Kubernetes' protobuf encoding of request bodies: what typed clients, kubectl among them, send for built-in kinds."""
