"""volgate: volumes with an exact quota, mounted as local directories.

Layers, high to low: cli; daemon; fuse, control, config; copies; vfs; volume; cache; drivers, ledger, manifests; core;
errors; dto. A module imports only layers below its own; ``daemon.mountd`` builds every object once. The modules beside
them (paths, logs, events, mount_table) serve all.
"""

__version__ = "0.1.0"
