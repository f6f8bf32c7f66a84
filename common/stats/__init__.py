"""Intervals, bands and tests of clustered units; torch-free."""
