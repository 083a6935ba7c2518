"""Exit status of a failed verb, by sysexits(3)."""

from __future__ import annotations

import os
from typing import Final

from volgate import errors

_STATUS: Final[dict[type[errors.StorageException], int]] = {
    errors.BadConfiguration: os.EX_CONFIG,
    errors.InvalidArgument: os.EX_USAGE,
    errors.Unsupported: os.EX_USAGE,
    errors.AlreadyExists: os.EX_CANTCREAT,
    errors.NotFound: os.EX_UNAVAILABLE,
    errors.Unavailable: os.EX_TEMPFAIL,
    errors.Busy: os.EX_TEMPFAIL,
    errors.PermissionDenied: os.EX_NOPERM,
    errors.NotPermitted: os.EX_NOPERM,
    errors.NoSpace: os.EX_CANTCREAT,
    errors.QuotaExceeded: os.EX_CANTCREAT,
}


def exit_status(error: errors.StorageException) -> int:
    """Return the exit status for an exception; 69 where nothing fits better."""
    return next((_STATUS[class_] for class_ in type(error).__mro__ if class_ in _STATUS), os.EX_UNAVAILABLE)
