"""Backends: one driver for each kind of storage. See README.md."""
