"""What made the small model."""
