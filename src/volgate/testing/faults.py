"""A backend that fails on purpose: at its n-th call it raises, hangs or lies, before or after doing the work.

For driver authors and for volgate's own tests. Sweep n = 1, 2, ... until ``Fault.happened`` stays false: then every
call of a run has failed once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Literal

import attrs
import trio

from volgate.drivers.base import BackendFile, BaseStorageBackend, Capabilities
from volgate.errors import StorageException

_FILE_CALLS = (
    "read", "write", "truncate", "sync", "get_attributes", "flush", "reopen", "set_attributes",
    "get_xattr", "set_xattr", "list_xattrs", "remove_xattr",
)  # fmt: skip
_BACKEND_CALLS = (
    "open_directory", "list_names", "get_attributes", "set_attributes", "open_file", "create_file", "create_node",
    "remove", "rename", "get_space", "get_attributes_of", "link", "create_symlink", "read_link", "get_xattr",
    "set_xattr", "list_xattrs", "remove_xattr", "sync_directory", "open_reserved", "clone", "open_node", "sync_volume",
)  # fmt: skip
_UNTOUCHED = (
    "create_volume", "open_volume", "load_reserved", "store_reserved", "remove_reserved",
    "acquire_ownership", "release_ownership",
    "measure_key", "close",
)  # fmt: skip


@attrs.define
class Fault:
    """What goes wrong, and when.

    Attributes:
        at: number of the call that fails, from 1; 0 = every call.
        error: what is raised: a StorageException, or anything a broken driver might raise.
        times: how many calls in a row fail.
        after: do the work first, then fail: the caller cannot know that it happened.
        hang: do not raise but never return. What was asked for is done when the storage comes back: ``come_back``.
        lie: do not raise but return this.
        only: fail these calls only; () = any.
        calls: how many calls were made.
        happened: whether it went wrong.
    """

    at: int = 0
    error: BaseException | None = None
    times: float = 1
    after: bool = False
    hang: bool = False
    lie: Any = None
    only: tuple[str, ...] = ()
    armed: bool = False
    calls: int = 0
    happened: bool = False
    late: list[Callable[[], Coroutine[Any, Any, Any]]] = attrs.field(factory=list)

    async def come_back(self) -> None:
        """Do what hanging calls were asked for, whether or not anybody still waits for it."""
        while self.late:
            with contextlib.suppress(StorageException):
                await self.late.pop(0)()

    def strikes(self, name: str) -> bool:
        """Count a call and return whether it is the one to fail."""
        if not self.armed or (self.only and name not in self.only):
            return False
        self.calls += 1
        struck = self.at == 0 or self.at <= self.calls < self.at + self.times
        self.happened = self.happened or struck
        return struck

    async def outcome(self) -> Any:
        """Fail."""
        if self.hang:
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error
        return self.lie


def _faulty(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        struck = self.fault.strikes(name)
        work = functools.partial(getattr(self.inner, name), *_unwrapped(args), **kwargs)
        if struck and not self.fault.after:
            if self.fault.hang:
                self.fault.late.append(work)
            return await self.fault.outcome()
        result = await work()
        if struck:
            return await self.fault.outcome()
        if isinstance(result, BackendFile):
            return FaultyFile(result, self.fault)
        if isinstance(result, tuple) and isinstance(result[0], BackendFile):
            return FaultyFile(result[0], self.fault), *result[1:]
        return result

    call.__name__ = name
    return call


def _passed(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await getattr(self.inner, name)(*_unwrapped(args), **kwargs)

    call.__name__ = name
    return call


def _unwrapped(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(arg.inner if isinstance(arg, FaultyFile) else arg for arg in args)


class _FaultyFileBase(BackendFile):
    """The calls of an open file, each of which may be the one that fails; close never does.

    It waits behind calls that hang, as the kernel keeps what a descriptor means for the calls that are under way.
    """

    def __init__(self, inner: BackendFile, fault: Fault) -> None:
        self.inner = inner
        self.fault = fault

    async def close(self) -> None:
        """See BackendFile."""
        if self.fault.late:
            self.fault.late.append(self.inner.close)
        else:
            await self.inner.close()


FaultyFile: Any = type("FaultyFile", (_FaultyFileBase,), {name: _faulty(name) for name in _FILE_CALLS})


class _FaultyBackendBase(BaseStorageBackend):
    """Wraps a backend; see ``Fault``."""

    backend_type: ClassVar[str] = "faulty"

    def __init__(self, inner: BaseStorageBackend, fault: Fault, inline: Literal[True, False, None] = None) -> None:
        self.inner = inner
        self.fault = fault
        self._inline = inline

    @property
    def capabilities(self) -> Capabilities:
        """The wrapped backend's; with ``inline_io`` as the constructor was told."""
        found = self.inner.capabilities
        return found if self._inline is None else attrs.evolve(found, inline_io=self._inline)

    def key_of_name(self, directory: Any, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend."""
        return self.inner.key_of_name(directory, name, ino)

    def key_of_node(self, directory: Any, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend."""
        return self.inner.key_of_node(directory, name, ino)

    def key_of_file(self, file: Any) -> bytes | None:
        """See BaseStorageBackend."""
        return self.inner.key_of_file(file.inner)


FaultyBackend: Any = type(
    "FaultyBackend",
    (_FaultyBackendBase,),
    {**{name: _faulty(name) for name in _BACKEND_CALLS}, **{name: _passed(name) for name in _UNTOUCHED}},
)
