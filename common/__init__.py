"""What both experiments share."""
