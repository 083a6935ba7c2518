"""Files that hold a secret: read only where nobody else could have read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from volgate.errors import BadConfiguration

_MAX_BYTES: Final = 1 << 20


def read_secret(path: Path, what: str) -> bytes:
    """Return the content of a file that its owner alone may read, and who is root or this process's user.

    Args:
        what: it is, for messages.

    Raises:
        BadConfiguration: it is missing, too large, or others may read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise BadConfiguration(f"{what} {path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or len(content) > _MAX_BYTES:
        raise BadConfiguration(f"{what} {path} is no file, or too large")
    if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
        raise BadConfiguration(f"{what} {path} may be read by others; chmod 600 it")
    return content
