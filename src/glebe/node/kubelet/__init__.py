"""What a node answers over HTTPS, as a kubelet does: logs, exec, attach, port-forward, statistics."""
