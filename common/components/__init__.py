"""Heads, attentions and MLPs of a block."""
