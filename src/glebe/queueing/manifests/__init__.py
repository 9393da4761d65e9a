"""Manifests of the production path: what ``glebe controller`` installs on a Kubernetes that is not embedded."""
