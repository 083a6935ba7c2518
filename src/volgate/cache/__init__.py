"""A Backend made from an ObjectStore, and what it keeps on local disk."""
