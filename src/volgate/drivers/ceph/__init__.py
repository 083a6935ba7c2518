"""Volumes kept in CephFS."""
