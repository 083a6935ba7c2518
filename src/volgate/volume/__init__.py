"""Services on a volume: quota, ownership, counting. See README.md."""
