"""The door to the kernel: every handler's exceptions become an errno, and every request is counted.

pyfuse3 ends the whole mount on any exception but FUSEError and Cancelled; so this door is total. Storage exceptions
answer by ``errno_map``; what nobody foresaw is logged with its traceback and answers EIO.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import attrs
import pyfuse3
import trio

from volgate.dto import StorageOperationError
from volgate.errors import StorageException, TimedOut, errno_map

if TYPE_CHECKING:
    from volgate.fuse.operations import Operations

log = logging.getLogger(__name__)

RECENT_ERRORS: Final = 32
DEADLINE_S: Final = 60.0
"""A request of a driver that can hang is answered ETIMEDOUT when it has not moved for so long."""

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class RequestStatistics:
    """What passed the door.

    Attributes:
        requests: how often each operation was asked for.
        errors: how often each errno was answered, by its name.
        in_flight: requests under way.
        oldest_request_s: age of the oldest of them, seconds; 0.0 when there is none.
        recent_errors: the last failures worth a look, oldest first.
    """

    requests: dict[str, int]
    errors: dict[str, int]
    in_flight: int
    oldest_request_s: float
    recent_errors: tuple[StorageOperationError, ...]


class Desk:
    """Counts requests, and keeps those under way; shared by all handlers of a session."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        self.errors: Counter[str] = Counter()
        self.started: dict[int, float] = {}
        self.serial = 0
        self.recent_errors: deque[StorageOperationError] = deque(maxlen=RECENT_ERRORS)

    def statistics(self) -> RequestStatistics:
        """Return the counts as they are now."""
        oldest = min(self.started.values(), default=None)
        return RequestStatistics(
            dict(self.requests),
            dict(self.errors),
            len(self.started),
            0.0 if oldest is None else time.monotonic() - oldest,
            tuple(self.recent_errors),
        )


def handler(
    method: Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]:
    """Make a handler total: its exceptions become an errno, 1..133, and the request is counted."""
    operation = method.__name__

    @functools.wraps(method)
    async def guarded(self: Operations, *args: P.args, **kwargs: P.kwargs) -> R:
        desk = self.desk
        desk.requests[operation] = desk.requests.get(operation, 0) + 1
        desk.serial = serial = desk.serial + 1
        desk.started[serial] = time.monotonic()
        try:
            if self.inline:
                return await method(self, *args, **kwargs)
            return await _with_deadline(method, self, args, dict(kwargs))
        except pyfuse3.FUSEError as error:
            raise _counted(desk, error.errno) from None
        except StorageException as error:
            number = errno_map.to_errno(error)
            if error.log_level > logging.INFO:
                _report(self, operation, args, error)
            raise _counted(desk, number) from None
        except OSError as error:
            log.exception("an unconverted system error left a driver", extra={"operation": operation})
            raise _counted(desk, error.errno or errno.EIO) from None
        except Exception:  # the door is total: see the module's docstring
            log.exception("a request failed in a way nobody foresaw", extra={"operation": operation})
            raise _counted(desk, errno.EIO) from None
        finally:
            del desk.started[serial]

    return guarded  # type: ignore[return-value] # functools.wraps gives self a name, Concatenate has none


async def _with_deadline(
    method: Callable[..., Coroutine[Any, Any, R]], self: Operations, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> R:
    with trio.move_on_after(self.deadline_s):
        return await method(self, *args, **kwargs)
    raise TimedOut(f"the backend did not answer within {self.deadline_s:g} s")


def _counted(desk: Desk, number: int) -> pyfuse3.FUSEError:
    if not 1 <= number <= 133:  # what is outside reaches the caller as another error (measured)
        number = errno.EIO
    desk.errors[errno_map.errno_name(number)] += 1
    return pyfuse3.FUSEError(number)


def _report(self: Operations, operation: str, args: tuple[Any, ...], error: StorageException) -> None:
    """Log a failure worth a look, with the place it happened at."""
    ino = args[0] if args and isinstance(args[0], int) else 0
    if operation in ("read", "write", "fsync", "flush", "release"):
        opened = self.file_system.tree.files.get(ino)
        ino = opened.inode.ino if opened is not None else 0
    name = next((arg for arg in args if isinstance(arg, bytes)), b"") if operation != "write" else b""
    context = self.file_system.describe(operation, ino, name, error)
    self.desk.recent_errors.append(context)
    log.log(
        error.log_level,
        "a storage operation failed",
        extra={
            "operation": context.operation,
            "path": context.path,
            "error": context.error_message,
            "code": context.error_code,
        },
    )
