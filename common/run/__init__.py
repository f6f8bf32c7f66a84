"""A run: its command line, its identity, its folder, its processes."""
