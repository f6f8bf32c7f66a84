"""What made the demo clips and the two models."""
