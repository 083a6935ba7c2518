"""The one tree of storage exceptions.

StorageException
├── NotFound            no such name or inode
├── AlreadyExists       the name is taken
├── NotADirectory       a directory was needed
├── IsADirectory        something else was needed
├── DirectoryNotEmpty   rmdir or rename over a directory with entries
├── PermissionDenied    the backing refuses for lack of rights (EACCES)
├── NotPermitted        not allowed at all (EPERM)
├── ReadOnly            volume or backing is read-only
├── InvalidArgument     the request makes no sense
│   └── BadConfiguration    a setting is wrong; names file, line, section and key
├── NameTooLong         a name over 255 bytes, a target over 4095
├── IllegalName         a name that the storage cannot have (EILSEQ)
├── TooManyLinks        the backing's link limit
├── TooManySymlinks     a symlink where none may be followed
├── CrossDevice         the request would leave the volume
├── NoAttribute         no such extended attribute
├── AttributeTooLarge   an xattr over the limits
├── FileTooLarge        beyond the largest offset of the backing
├── Busy                in use
│   └── VolumeInUse     another process owns the volume
│   └── NotMounted          its owner is needed, and does not run
├── Stale               the name or handle no longer means the inode it meant; look it up anew
├── QuotaExceeded       the volume's limit (EDQUOT)
├── NoSpace             the backing is full (ENOSPC)
├── Unsupported         the backend cannot do this
├── TooManyOpenFiles    descriptors have run out
├── Unavailable         the backend does not answer; retryable
│   ├── TimedOut        nothing moved for the deadline
│   ├── ShuttingDown    the volume is being unmounted
│   └── TryAgain        not now (a recount is running); retryable
└── InputOutput         the backing failed (EIO)

An exception may carry ``context``, a StorageOperationError. ``retryable`` says whether the same call may succeed
later; ``log_level`` says how loud it is: an answer such as NotFound is DEBUG, a failing backing is ERROR.
The numbers stand in ``errno_map`` alone.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from volgate.dto import StorageOperationError


class StorageException(Exception):  # noqa: N818 - the DTO StorageOperationError has the other suffix
    """Root of the tree; never raised itself.

    Args:
        message: one line for people; empty where the class says it all.
        context: where it failed; added on the way up by whoever knows it.
    """

    retryable: ClassVar[bool] = False
    log_level: ClassVar[int] = logging.DEBUG

    def __init__(self, message: str = "", *, context: StorageOperationError | None = None) -> None:
        super().__init__(message)
        self.context = context

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").split("\n", 1)[0].rstrip(".")


class NotFound(StorageException):
    """No such file or directory."""


class AlreadyExists(StorageException):
    """The name is taken."""


class NotADirectory(StorageException):
    """Not a directory."""


class IsADirectory(StorageException):
    """Is a directory."""


class DirectoryNotEmpty(StorageException):
    """The directory is not empty."""


class PermissionDenied(StorageException):
    """The backing refuses: permission denied."""


class NotPermitted(StorageException):
    """Not permitted."""


class ReadOnly(StorageException):
    """The volume is read-only."""


class InvalidArgument(StorageException):
    """Invalid argument."""


class BadConfiguration(InvalidArgument):
    """A setting is wrong."""


class NameTooLong(StorageException):
    """The name is too long."""


class IllegalName(StorageException):
    """The storage cannot have such a name."""


class TooManyLinks(StorageException):
    """Too many links."""


class TooManySymlinks(StorageException):
    """A symlink stands where none may be followed."""


class CrossDevice(StorageException):
    """The request would leave the volume."""


class NoAttribute(StorageException):
    """No such extended attribute."""


class AttributeTooLarge(StorageException):
    """The extended attribute is too large."""


class FileTooLarge(StorageException):
    """The file would be too large."""


class Busy(StorageException):
    """In use."""


class VolumeInUse(Busy):
    """Another process owns the volume."""


class TextFileBusy(Busy):
    """The program is being executed."""


class NotMounted(Busy):
    """The volume is not mounted."""


class Stale(StorageException):
    """The name or handle no longer means the inode it meant."""


class SourceChanged(Stale):
    """A file was changed while it was read."""


class QuotaExceeded(StorageException):
    """The volume's limit is reached."""


class NoSpace(StorageException):
    """The backing storage is full."""

    log_level = logging.WARNING


class Unsupported(StorageException):
    """The backend cannot do this."""


class TooManyOpenFiles(StorageException):
    """File descriptors have run out."""

    log_level = logging.WARNING


class Unavailable(StorageException):
    """The backend does not answer."""

    retryable = True
    log_level = logging.WARNING


class TimedOut(Unavailable):
    """Nothing moved before the deadline."""


class ShuttingDown(Unavailable):
    """The volume is being unmounted."""

    log_level = logging.INFO


class TryAgain(Unavailable):
    """Not now; try again."""

    log_level = logging.INFO


class InputOutput(StorageException):
    """The backing storage failed."""

    log_level = logging.ERROR
