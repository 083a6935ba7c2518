"""The S3 driver: see README.md here."""
