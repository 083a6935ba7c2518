"""The process: wiring and the mount daemon."""
