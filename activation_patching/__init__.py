"""Experiment 2: which layers carry the answer: one clip's audio states in another clip's run."""
