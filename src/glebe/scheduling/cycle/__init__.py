"""Who starts now: the order of what waits, the admission cycle of production, and Kueue's to the letter."""
