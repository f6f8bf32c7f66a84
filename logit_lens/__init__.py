"""Experiment 1: what the model would answer at every layer, on clips whose words and voice disagree."""
