"""Shares of a Hammerspace cluster: data by NFS, limits and snapshots by the REST interface of its Anvil."""
