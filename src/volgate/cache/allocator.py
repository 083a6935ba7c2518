"""How the process keeps memory that it gives back to the C library."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_BYTES: Final = 32 << 20
"""The most that glibc takes for M_MMAP_THRESHOLD (mallopt(3))."""
_KEPT_BYTES: Final = 64 << 20


def keep_freed_memory() -> None:
    """Have pieces of some MiB use again what others gave back, instead of pages that the kernel has to clear.

    Content passes through in such pieces, and faults of fresh pages cost as much as all else with it. Nothing happens
    where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
