"""Intervention `span`: the donor's whole audio span replaces the recipient's."""
