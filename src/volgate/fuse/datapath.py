"""What stands between pyfuse3 and the kernel for the bytes of open files.

``DataPath`` is the null object: every request goes through Python. A native one will serve reads and writes of
registered files itself; what it needs is kept from the start: files are registered by the open or create that makes
them, before its reply, under a number that is never used again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volgate.core.handle_table import Fh


class DataPath:
    """Serves nothing itself."""

    def register(self, fh: Fh) -> None:
        """Take note of an open file before the reply that names it."""

    def release(self, fh: int) -> None:
        """Forget an open file; its last close has begun."""
