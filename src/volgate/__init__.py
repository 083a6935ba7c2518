"""volgate: volumes with an exact quota, mounted as local directories.

Layers, high to low: cli, daemon; fuse, control; vfs; volume; drivers, ledger; core; dto, errors.
A module imports only layers below its own; ``daemon.mountd`` builds every object once.
"""

__version__ = "0.1.0"
