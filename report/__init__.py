"""The report, built from the outputs of both experiments."""
