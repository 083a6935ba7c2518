"""The only table between exception classes and errno, both ways.

Numbers are those of errno(3). Many numbers come in from backings, so the way in is total: an unlisted number
becomes InputOutput with the number's name in its message.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from volgate import errors

ERRNO_OF: Final[dict[type[errors.StorageException], int]] = {
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.NotADirectory: errno.ENOTDIR,
    errors.IsADirectory: errno.EISDIR,
    errors.DirectoryNotEmpty: errno.ENOTEMPTY,
    errors.PermissionDenied: errno.EACCES,
    errors.NotPermitted: errno.EPERM,
    errors.ReadOnly: errno.EROFS,
    errors.InvalidArgument: errno.EINVAL,
    errors.NameTooLong: errno.ENAMETOOLONG,
    errors.IllegalName: errno.EILSEQ,
    errors.TooManyLinks: errno.EMLINK,
    errors.TooManySymlinks: errno.ELOOP,
    errors.CrossDevice: errno.EXDEV,
    errors.NoAttribute: errno.ENODATA,
    errors.AttributeTooLarge: errno.E2BIG,
    errors.FileTooLarge: errno.EFBIG,
    errors.Busy: errno.EBUSY,
    errors.VolumeInUse: errno.EBUSY,
    errors.TextFileBusy: errno.ETXTBSY,
    errors.NotMounted: errno.EBUSY,
    errors.Stale: errno.ESTALE,
    errors.SourceChanged: errno.ESTALE,
    errors.QuotaExceeded: errno.EDQUOT,
    errors.NoSpace: errno.ENOSPC,
    errors.Unsupported: errno.EOPNOTSUPP,
    errors.TooManyOpenFiles: errno.EMFILE,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.ShuttingDown: errno.ESHUTDOWN,
    errors.TryAgain: errno.EAGAIN,
    errors.InputOutput: errno.EIO,
    errors.Unavailable: errno.EIO,
    errors.BadConfiguration: errno.EINVAL,
}
_NOT_FROM_ERRNO: Final = (
    errors.Unavailable,
    errors.BadConfiguration,
    errors.VolumeInUse,
    errors.NotMounted,
    errors.SourceChanged,
)

_CLASS_OF: Final[dict[int, type[errors.StorageException]]] = {
    **{number: class_ for class_, number in ERRNO_OF.items() if class_ not in _NOT_FROM_ERRNO},
    errno.ENFILE: errors.TooManyOpenFiles,
    errno.ERANGE: errors.AttributeTooLarge,
    errno.ENOSYS: errors.Unsupported,
}


def to_errno(error: errors.StorageException) -> int:
    """Return the errno, 1..133, that a caller of the kernel gets for this exception."""
    for class_ in type(error).__mro__:
        number = ERRNO_OF.get(class_)
        if number is not None:
            return number
    return errno.EIO


def from_errno(number: int, message: str = "") -> errors.StorageException:
    """Return the exception for a number that a backing gave; InputOutput where the table has none."""
    class_ = _CLASS_OF.get(number)
    if class_ is not None:
        return class_(message)
    name = errno.errorcode.get(number, str(number))
    return errors.InputOutput(message or f"the backing answered {name} ({os.strerror(number)})")


def from_oserror(error: OSError) -> errors.StorageException:
    """Return the exception for an OSError of a system call on a backing; raise it ``from`` that error."""
    return from_errno(error.errno or errno.EIO)


def from_oserror_at(error: OSError) -> errors.StorageException:
    """Return the exception for an OSError on a file of our own: one line that names it."""
    number = error.errno or errno.EIO
    return from_errno(number, f"{error.filename or 'a file'} cannot be used: {os.strerror(number)}")


def errno_name(number: int) -> str:
    """Return ``EDQUOT`` for 122, and so on."""
    return errno.errorcode.get(number, str(number))
