"""Scripts that trained and measured the small model."""
