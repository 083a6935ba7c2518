"""Snapshots of a volume: see README.md here."""
