"""What is fitted on other clips: the tuned lens and the probes."""
