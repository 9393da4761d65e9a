"""What happens when jobs, pods and queues are written: admission in the server, as a webhook, as policies."""
