"""File system semantics without pyfuse3. See README.md."""
