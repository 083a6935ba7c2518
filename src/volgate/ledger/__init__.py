"""Where a volume's usage is kept."""
