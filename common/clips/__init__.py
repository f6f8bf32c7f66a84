"""Clips and pairs of clips."""
