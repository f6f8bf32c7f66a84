"""The subspace of the states that decodes a label: erased, or exchanged between two clips."""
