"""What queues say of themselves: statuses, shares, who waits in which order."""
