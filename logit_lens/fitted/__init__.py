"""What is fitted on other texts: the tuned lens and the probes."""
