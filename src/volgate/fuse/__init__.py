"""The door to the kernel: the only package that imports pyfuse3."""
