"""DTOs of whole volumes and of places in them."""
