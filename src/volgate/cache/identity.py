"""What a cache directory is called in a volume's lease: a random id of its own, as its path is alike on many hosts.

It holds for the directory's inode, so a copy gets another one.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from volgate.errors.errno_map import from_oserror_at

_FILE: Final = "id"
_ID: Final = re.compile(rb"([0-9a-f]{32}) ([0-9]+)\n")


def load_identity(directory: Path) -> str:
    """Return the id of a cache directory; made, durably, where there is none that can be read.

    The caller has locked the directory. Blocks: on local disk.

    Raises:
        StorageException: it can be neither read nor made.
    """
    path, inode = directory / _FILE, directory.stat().st_ino
    try:
        with contextlib.suppress(FileNotFoundError):
            found = _ID.fullmatch(path.read_bytes())
            if found is not None and int(found[2]) == inode:
                return found[1].decode()
        identity = secrets.token_hex(16)
        _store(path, f"{identity} {inode}\n".encode())
    except OSError as error:
        raise from_oserror_at(error) from error
    return identity


def _store(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
