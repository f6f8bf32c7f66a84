"""Scripts that made the demo clips and the two models."""
