"""Experiment 2: put one clip's audio states into another clip's run, layer by layer."""
