"""Volumes kept in a local or network directory."""
