"""Intervention `components`: single heads, attentions and MLPs of the donor in the recipient's run."""
