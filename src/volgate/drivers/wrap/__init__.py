"""Backends made from backends."""
