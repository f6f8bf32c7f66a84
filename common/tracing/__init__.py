"""A clip's own run: what its blocks read, keep and answer."""
