"""Job traces replayed through the production engine: what a policy or a fleet size would have meant. Pure."""
