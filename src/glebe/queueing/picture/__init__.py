"""The queue's picture of the world: API objects as what the core sees, kept up to date change by change."""
