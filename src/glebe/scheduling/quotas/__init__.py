"""Quota over trees of cohorts: what may be used, borrowed and lent, shares of it, and what is claimed."""
