"""Intervention `exchange`: of a state, only the subspace that decodes a label becomes the donor's."""
