"""The gateway's own files beside the data, in ``.volgate`` at the root: the identity, the owner's lock.

Raises OSError and StorageExceptions; called by the backend behind its door.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Final

from volgate.core.names import GATEWAY_NAME
from volgate.errors import Busy, InvalidArgument

_LOCK: Final = "owner.lock"
_MARKER: Final = "format"
_FORMAT: Final = b"volgate 1\n"
_DRAFT: Final = ".new"


class ReservedFiles:
    """Files under ``.volgate``.

    Args:
        root_fd: descriptor of the volume's root; not closed here.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._lock_fd = -1

    def _open_folder(self, *, make: bool) -> int | None:
        """Return a descriptor of ``.volgate``, None where there is none and none is to be made.

        A folder without its marker is what a crash in the middle of making it leaves: empty but for the marker's draft.
        """
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(GATEWAY_NAME, 0o700, dir_fd=self._root_fd)
        try:
            folder = self._open()
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise self._foreign() from error
        try:
            marker = self._read(folder, _MARKER)
            if marker != _FORMAT:
                if marker is not None or set(os.listdir(folder)) - {_MARKER + _DRAFT}:
                    raise self._foreign()
                if make:
                    self._write(folder, _MARKER, _FORMAT)
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(GATEWAY_NAME, flags, dir_fd=self._root_fd)

    @staticmethod
    def _foreign() -> InvalidArgument:
        return InvalidArgument("the directory holds a '.volgate' that is not this version's; move it away to go on")

    @staticmethod
    def _read(folder: int, name: str) -> bytes | None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return file.read()

    @staticmethod
    def _write(folder: int, name: str, content: bytes) -> None:
        """Replace a file atomically and durably. It belongs to whom the folder does, who serves the volume, too."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name + _DRAFT, dir_fd=folder)  # of a crash, or whatever somebody put there
        owner = os.fstat(folder).st_uid
        with open(os.open(name + _DRAFT, flags, 0o600, dir_fd=folder), "wb") as file:
            if os.fstat(file.fileno()).st_uid != owner:
                with contextlib.suppress(OSError):  # it need not be possible
                    os.fchown(file.fileno(), owner, -1)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name + _DRAFT, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)

    def open_folder(self, path: str) -> int:
        """Return an O_PATH descriptor of a directory below ``.volgate``, made where it is missing."""
        folder = self._open_folder(make=True)
        assert folder is not None
        for name in path.split("/"):
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
                below = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            finally:
                os.close(folder)
            folder = below
        return folder

    def load(self, name: str) -> bytes | None:
        """Return a file's content, None where there is none."""
        folder = self._open_folder(make=False)
        if folder is None:
            return None
        try:
            return self._read(folder, name)
        finally:
            os.close(folder)

    def store(self, name: str, content: bytes) -> None:
        """Replace a file atomically and durably."""
        folder = self._open_folder(make=True)
        assert folder is not None
        try:
            self._write(folder, name, content)
        finally:
            os.close(folder)

    def remove(self, name: str) -> None:
        """Remove a file, durably; nothing happens where there is none."""
        folder = self._open_folder(make=False)
        if folder is None:
            return
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)

    def lock(self, holder: bytes) -> None:
        """Take the owner's lock and write who holds it. Raises Busy with the holder's line."""
        folder = self._open_folder(make=True)
        assert folder is not None
        try:
            fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held_by = os.pread(fd, 4096, 0).decode("utf-8", "replace").strip()
            os.close(fd)
            raise Busy(held_by) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, holder, 0)
        self._lock_fd = fd

    def unlock(self) -> None:
        """Give the lock up; nothing happens where it is not held."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
