"""DTOs of quota and usage."""
