"""What makes a volume of an object store: who owns it, what is kept of it on local disk."""
