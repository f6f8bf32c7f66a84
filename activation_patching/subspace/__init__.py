"""Interventions `erase` and `exchange`: only the subspace that decodes a label is changed."""
