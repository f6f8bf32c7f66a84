"""Attention between audio, question and last token, cut."""
