"""Snapshots of a bucket: which objects it held, and copies of those that changed since. See README.md above."""
