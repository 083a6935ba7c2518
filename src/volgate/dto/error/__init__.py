"""DTOs of failures."""
