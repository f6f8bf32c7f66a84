"""Models, memory and clips at the time of a run."""
