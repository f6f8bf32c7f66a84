"""Clips, manifests and models: how they come about."""
