"""Sections of the report that combine several runs."""
