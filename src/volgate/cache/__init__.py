"""What makes a volume of an object store: see README.md here."""
