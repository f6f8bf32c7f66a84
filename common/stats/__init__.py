"""Means and intervals of clustered units; torch-free."""
