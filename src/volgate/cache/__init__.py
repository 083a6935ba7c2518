"""What makes a volume of an object store: files over objects, who owns it, what is kept of it on local disk."""
