"""Files of an object store, with a cache on the local disk. See README.md."""
