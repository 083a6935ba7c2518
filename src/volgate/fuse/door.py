"""The door to the kernel: every handler's exceptions become an errno, and every request is counted.

pyfuse3 ends the whole mount on any exception but FUSEError and Cancelled; so this door is total. Storage exceptions
answer by ``errno_map``; what nobody foresaw is logged with its traceback and answers EIO.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import attrs
import pyfuse3

from volgate.concurrency import give_up_at_standstill
from volgate.dto import StorageOperationError
from volgate.errors import StorageException, TimedOut, errno_map

if TYPE_CHECKING:
    from volgate.fuse.operations import Operations

log = logging.getLogger(__name__)

RECENT_ERRORS: Final = 32
LATENCY_BUCKETS: Final = 48
"""The last one begins at 2**46 microseconds, over two years."""
DEADLINE_S: Final = 60.0
"""A request of a driver that can hang is answered ETIMEDOUT when it has not moved for so long."""

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class RequestStatistics:
    """What passed the door.

    Attributes:
        requests: answered requests of each operation.
        errors: how often each errno was answered, by its name.
        in_flight: requests under way.
        oldest_request_s: age of the oldest of them, seconds; 0.0 when there is none.
        read_bytes, written_bytes: content that passed, as answered.
        recent_errors: the last failures worth a look, oldest first.
    """

    requests: dict[str, Latency]
    errors: dict[str, int]
    in_flight: int
    oldest_request_s: float
    read_bytes: int
    written_bytes: int
    recent_errors: tuple[StorageOperationError, ...]


class Latency:
    """How long the requests of one operation took.

    Attributes:
        counts: requests by duration: element n counts those of 2**(n-1) up to 2**n microseconds, exclusive.
        total_s: all durations together, seconds.
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * LATENCY_BUCKETS
        self.total_s = 0.0

    @property
    def count(self) -> int:
        """How many requests there were."""
        return sum(self.counts)


class Desk:
    """Counts requests, and keeps those under way that can wait; shared by all handlers of a session."""

    def __init__(self) -> None:
        self.requests: defaultdict[str, Latency] = defaultdict(Latency)
        self.errors: Counter[str] = Counter()
        self.started: dict[int, float] = {}
        self.serial = 0
        self.read_bytes = 0
        self.written_bytes = 0
        self.recent_errors: deque[StorageOperationError] = deque(maxlen=RECENT_ERRORS)

    def statistics(self) -> RequestStatistics:
        """Return the counts as they are now."""
        oldest = min(self.started.values(), default=None)
        return RequestStatistics(
            dict(self.requests),
            dict(self.errors),
            len(self.started),
            0.0 if oldest is None else perf_counter() - oldest,
            self.read_bytes,
            self.written_bytes,
            tuple(self.recent_errors),
        )


def handler(
    method: Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]:
    """Make a handler total: its exceptions become an errno, 1..133, and the request is counted."""
    operation = method.__name__
    can_wait = operation in ("fsync", "fsyncdir")

    @functools.wraps(method)
    async def guarded(self: Operations, *args: P.args, **kwargs: P.kwargs) -> R:
        desk = self.desk
        started = perf_counter()
        try:
            if self.inline and not can_wait:
                return await method(self, *args, **kwargs)
            return await _under_way(method, self, args, started)
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
            elapsed = perf_counter() - started
            latency = desk.requests[operation]
            latency.total_s += elapsed
            latency.counts[int(elapsed * 1e6).bit_length()] += 1

    return guarded  # type: ignore[return-value] # functools.wraps gives self a name, Concatenate has none


def change(
    method: Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Operations, P], Coroutine[Any, Any, R]]:
    """Let a handler that changes the volume pass the turnstile: it waits while the volume has to stand still."""

    @functools.wraps(method)
    async def passing(self: Operations, *args: P.args, **kwargs: P.kwargs) -> R:
        turnstile = self.turnstile
        await turnstile.enter()
        try:
            return await method(self, *args, **kwargs)
        finally:
            turnstile.leave()

    return passing  # type: ignore[return-value] # functools.wraps gives self a name, Concatenate has none


async def _under_way(
    method: Callable[..., Coroutine[Any, Any, R]], self: Operations, args: tuple[Any, ...], started: float
) -> R:
    """Run a handler that can wait: others see it under way, and it has a deadline where the driver can hang."""
    desk = self.desk
    desk.serial = serial = desk.serial + 1
    desk.started[serial] = started
    try:
        with give_up_at_standstill(math.inf if self.inline else self.deadline_s):
            return await method(self, *args)
    finally:
        del desk.started[serial]
    raise TimedOut(f"the backend did not answer within {self.deadline_s:g} s")


def _counted(desk: Desk, number: int) -> pyfuse3.FUSEError:
    if not 1 <= number <= 133:  # what is outside reaches the caller as another error (measured)
        number = errno.EIO
    desk.errors[errno_map.errno_name(number)] += 1
    return pyfuse3.FUSEError(number)


def _report(self: Operations, operation: str, args: tuple[Any, ...], error: StorageException) -> None:
    """Log a failure worth a look, with the place it happened at."""
    ino = args[0] if args and isinstance(args[0], int) else 0
    side = self.file_system.side(ino)
    if operation in ("read", "write", "fsync", "flush", "release"):
        opened = side.tree.files.get(ino)
        ino = opened.inode.ino if opened is not None else 0
    name = next((arg for arg in args if isinstance(arg, bytes)), b"") if operation != "write" else b""
    context = side.describe(operation, ino, name, error)
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
