"""Clips, manifests, importers, and the two small models."""
