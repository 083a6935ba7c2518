"""The door to HTTP: exception classes to status numbers and codes, and back, as problem+json (RFC 9457).

The one table. A code is the class's name in small letters, or of what HTTP alone refuses one of ``Refusal``; it never
changes its meaning. Mount daemons answer by it, the control daemon reads their answers by it and answers by it too.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, Final

import attrs

from volgate import errors
from volgate.control.text import printable
from volgate.dto import StorageOperationError

CONTENT_TYPE: Final = "application/problem+json"
_RETRY_S: Final = 5
_CONTEXT: Final = tuple(field.name for field in attrs.fields(StorageOperationError))

_STATUS: Final[dict[type[errors.StorageException], int]] = {
    errors.NotFound: 404,
    errors.NoAttribute: 404,
    errors.Busy: 409,
    errors.AlreadyExists: 409,
    errors.DirectoryNotEmpty: 409,
    errors.NotADirectory: 409,
    errors.IsADirectory: 409,
    errors.TooManyLinks: 409,
    errors.TooManySymlinks: 409,
    errors.CrossDevice: 409,
    errors.Stale: 409,
    errors.NotPermitted: 403,
    errors.PermissionDenied: 403,
    errors.ReadOnly: 403,
    errors.InvalidArgument: 400,
    errors.NameTooLong: 400,
    errors.IllegalName: 400,
    errors.AttributeTooLarge: 400,
    errors.FileTooLarge: 413,
    errors.Unsupported: 422,
    errors.QuotaExceeded: 507,
    errors.NoSpace: 507,
    errors.Unavailable: 503,
    errors.TooManyOpenFiles: 503,
    errors.InputOutput: 502,
}
_REFUSALS: Final = {
    "malformed_request": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "unknown_route": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "request_in_progress": 409,
    "outcome_unknown": 409,
    "mount_failed": 409,
    "unmount_failed": 409,
    "serve_failed": 409,
    "length_required": 411,
    "body_too_large": 413,
    "range_not_satisfiable": 416,
    "invalid_request": 422,
    "idempotency_key_reused": 422,
    "internal": 500,
    "overloaded": 503,
    "not_ready": 503,
}
"""What is refused before, or beside, any operation on storage."""


def _code_of(class_: type[errors.StorageException]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_.__name__).lower()


def _tree(class_: type[errors.StorageException]) -> list[type[errors.StorageException]]:
    return [class_, *(found for child in class_.__subclasses__() for found in _tree(child))]


_CLASS_OF: Final = {_code_of(class_): class_ for class_ in _tree(errors.StorageException)}
CODES: Final = tuple(sorted({*_CLASS_OF, *_REFUSALS} - {"storage_exception"}))
"""All codes there are, but for 'storage_exception', which says that no class fits."""


@attrs.frozen
class Problem:
    """One answer that says what is wrong.

    Attributes:
        status: of HTTP. code: stable, for programs. detail: one line for people.
        context: where it failed, where that is known.
        invalid: what is wrong in the request, as (place, reason).
        retry_after_s: when it may be asked again; None where asking again is no remedy.
        headers: further ones that its status asks for.
    """

    status: int
    code: str
    detail: str
    context: StorageOperationError | None = None
    invalid: tuple[tuple[str, str], ...] = ()
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> bytes:
        """Return the body."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": printable(self.detail),
        }
        if self.context is not None:
            facts = attrs.asdict(self.context)
            body["context"] = {name: None if value is None else printable(value) for name, value in facts.items()}
        if self.invalid:
            body["invalid"] = [{"place": printable(place), "reason": printable(why)} for place, why in self.invalid]
        return json.dumps(body).encode()

    def all_headers(self) -> list[tuple[str, str]]:
        """Return the headers that go with it, the content's type among them."""
        wait = [] if self.retry_after_s is None else [("retry-after", str(self.retry_after_s))]
        return [("content-type", CONTENT_TYPE), *wait, *self.headers]


class Refusal(Exception):  # noqa: N818 - it is no failure of storage
    """A request is refused by the door itself.

    Args:
        code: one of the table's. detail: one line for people. others: further fields of ``Problem``.
    """

    def __init__(self, code: str, detail: str, **others: Any) -> None:
        super().__init__(detail)
        self.problem = Problem(_REFUSALS[code], code, detail, **others)


def describe(error: errors.StorageException) -> Problem:
    """Return the problem of an exception; the nearest class that the table has gives the status."""
    status = next((_STATUS[class_] for class_ in type(error).__mro__ if class_ in _STATUS), 500)
    return Problem(
        status, _code_of(type(error)), str(error), error.context, retry_after_s=_RETRY_S if error.retryable else None
    )


def to_problem(error: errors.StorageException) -> tuple[int, bytes]:
    """Return status and body for an exception."""
    found = describe(error)
    return found.status, found.to_json()


def problem(status: int, detail: str) -> bytes:
    """Return the body of a refusal that has no exception, its code made from the status."""
    code = next((code for code, number in _REFUSALS.items() if number == status), "internal")
    return Problem(status, code, detail).to_json()


def from_problem(status: int, content: bytes) -> errors.StorageException:
    """Return the exception that a daemon's answer stands for, by its code, else by its status."""
    try:
        body = json.loads(content)
        code, detail = body.get("code"), str(body.get("detail", ""))
        known = body.get("context")
        context = None if known is None else StorageOperationError(*(known[name] for name in _CONTEXT))
    except (ValueError, TypeError, AttributeError, KeyError):
        code, detail, context = None, content.decode(errors="replace")[:200], None
    fallback = next((class_ for class_, number in _STATUS.items() if number == status), errors.InvalidArgument)
    return _CLASS_OF.get(str(code), fallback)(detail, context=context)
