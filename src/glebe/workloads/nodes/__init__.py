"""Nodes that fall silent: their condition, their taints, and what becomes of their pods."""
