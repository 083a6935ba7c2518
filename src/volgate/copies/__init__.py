"""Copies between volumes, as tasks that survive the process (see README.md)."""
