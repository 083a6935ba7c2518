"""What a snapshot is told by: files that are written once, and read ever after. May import ``errors``."""
