"""Experiment 1: read the answer that each layer would give."""
