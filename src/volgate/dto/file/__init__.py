"""DTOs of single files."""
