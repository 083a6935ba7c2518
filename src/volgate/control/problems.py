"""The door to HTTP: exception classes to status numbers, as problem+json (RFC 9457)."""

from __future__ import annotations

import json
from typing import Any, Final

from volgate import errors

_STATUS: Final[dict[type[errors.StorageException], int]] = {
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.Busy: 409,
    errors.NotPermitted: 403,
    errors.PermissionDenied: 403,
    errors.ReadOnly: 403,
    errors.InvalidArgument: 400,
    errors.NameTooLong: 400,
    errors.Unsupported: 501,
    errors.QuotaExceeded: 507,
    errors.NoSpace: 507,
    errors.Unavailable: 503,
}


def to_problem(error: errors.StorageException) -> tuple[int, bytes]:
    """Return status and body for an exception."""
    status = next((_STATUS[class_] for class_ in type(error).__mro__ if class_ in _STATUS), 500)
    return status, problem(status, str(error))


def problem(status: int, detail: str) -> bytes:
    """Return a problem+json body."""
    body: dict[str, Any] = {"type": "about:blank", "status": status, "detail": detail}
    return json.dumps(body).encode()
