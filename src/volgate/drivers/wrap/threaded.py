"""A backend whose calls may block, made safe for the event loop: each runs in one of a bounded number of threads.

For directories on storage that can hang (NFS and the like). What it wraps must never really await, which is true of a
driver of plain system calls. A call whose caller gives up goes on in its thread and keeps its place until it returns.
Calls that make nodes run one at a time, since the umask belongs to the whole process.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

import attrs

from volgate.concurrency import BoundedThreads
from volgate.drivers.base import BackendFile, BaseStorageBackend, Capabilities
from volgate.dto import FileAttributes

MAX_THREADS: Final = 32
_FILE_CALLS: Final = (
    "read", "write", "truncate", "sync", "get_attributes", "close", "flush", "reopen", "set_attributes",
    "get_xattr", "set_xattr", "list_xattrs", "remove_xattr", "take_content",
)  # fmt: skip
_CALLS: Final = (
    "create_volume", "open_volume", "open_directory", "list_names", "get_attributes", "find_attributes",
    "set_attributes", "open_file", "remove", "rename", "get_space", "get_attributes_of", "link", "read_link",
    "get_xattr", "set_xattr",
    "list_xattrs", "remove_xattr", "load_reserved", "store_reserved", "remove_reserved",
    "acquire_ownership", "release_ownership",
    "sync_directory", "measure_key", "close", "delete_volume", "open_reserved", "clone", "open_node", "sync_volume",
    "get_native_quota", "set_native_quota", "inspect", "create_snapshot",
    "list_snapshots", "open_snapshot", "delete_snapshot",
)  # fmt: skip
_MAKING_CALLS: Final = ("create_file", "create_node", "create_symlink")


def _finish(coroutine: Generator[Any, Any, Any]) -> Any:
    """Run a coroutine that never awaits to its end."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("a driver that runs in threads must not await")


def _in_thread(name: str, *, making: bool = False) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        plain = [_plain(arg) for arg in args]
        threads = self.making if making else self.threads
        result = await threads.run(lambda: _finish(getattr(self.inner, name)(*plain, **kwargs)))
        if isinstance(result, BackendFile):
            return ThreadedFile(result, self.threads)
        if isinstance(result, tuple) and isinstance(result[0], BackendFile):
            return ThreadedFile(result[0], self.threads), *result[1:]
        return result

    call.__name__ = name
    return call


class _ThreadedFileBase(BackendFile):
    def __init__(self, inner: BackendFile, threads: BoundedThreads) -> None:
        self.inner = inner
        self.threads = threads

    def can_take(self, source: BackendFile) -> bool:
        """See BackendFile."""
        return self.inner.can_take(_plain(source))


def _plain(argument: Any) -> Any:
    """Return what the wrapped driver knows."""
    return argument.inner if isinstance(argument, _ThreadedFileBase) else argument


ThreadedFile: Any = type("ThreadedFile", (_ThreadedFileBase,), {name: _in_thread(name) for name in _FILE_CALLS})


class _ThreadedBackendBase(BaseStorageBackend):
    """See the module.

    Args:
        inner: a driver of plain system calls.
    """

    def __init__(self, inner: BaseStorageBackend) -> None:
        self.inner = inner
        self.backend_type = inner.backend_type  # type: ignore[misc]  # the wrapped class's
        self.threads = BoundedThreads(MAX_THREADS)
        self.making = BoundedThreads(1)

    @property
    def capabilities(self) -> Capabilities:
        """The wrapped backend's, but no call is inline."""
        return attrs.evolve(self.inner.capabilities, inline_io=False, close_reports_errors=True)

    @property
    def oldest_call_s(self) -> float:
        """See BaseStorageBackend."""
        return max(self.threads.oldest_call_s, self.making.oldest_call_s)

    def key_of_name(self, directory: Any, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend; a handle is asked for without waiting for the storage."""
        return self.inner.key_of_name(directory, name, ino)

    def key_of_node(self, directory: Any, name: bytes, ino: int) -> bytes | None:
        """See BaseStorageBackend; likewise."""
        return self.inner.key_of_node(directory, name, ino)

    def content_tag(self, directory: Any, name: bytes, attributes: FileAttributes) -> object:
        """See BaseStorageBackend."""
        return self.inner.content_tag(directory, name, attributes)

    def key_of_file(self, file: Any) -> bytes | None:
        """See BaseStorageBackend."""
        return self.inner.key_of_file(file.inner)


ThreadedBackend: Any = type(
    "ThreadedBackend",
    (_ThreadedBackendBase,),
    {
        **{name: _in_thread(name) for name in _CALLS},
        **{name: _in_thread(name, making=True) for name in _MAKING_CALLS},
    },
)
