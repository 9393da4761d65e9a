"""Requests through the API server to pods, services and nodes."""
