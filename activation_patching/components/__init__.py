"""Heads, attentions and MLPs of the donor's run, put into the recipient's."""
