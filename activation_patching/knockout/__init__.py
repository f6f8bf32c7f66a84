"""Intervention `knockout`: attention between audio, question and last token is cut."""
