"""A directory as one stream: tar (POSIX pax) or zip. What leads out of it is packed as what it is: a link."""

from __future__ import annotations

import os
import stat
import tarfile
import time
import zipfile
from collections.abc import AsyncGenerator
from typing import Final

import trio

from volgate.errors import InvalidArgument, NameTooLong, Stale
from volgate.vfs.files import CHUNK_BYTES, Entry, Files
from volgate.vfs.paths import join

_BLOCK: Final = 512
_PAGE: Final = 500
_TYPES: Final = {
    stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE,
}  # fmt: skip
_FIRST_S: Final = 315532800
_LAST_S: Final = 4354819198
"""Between these zip's clock can tell the time: 1980-01-01 to 2107-12-31 23:59:58, UTC."""
_MAX_NAME_BYTES: Final = 65535
"""Of a path in a zip archive, whose length has two bytes."""
_ZIP_TYPES: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})


async def _walk(files: Files, path: bytes) -> AsyncGenerator[tuple[bytes, bytes, Entry], None]:
    """Yield (path in the volume, path in the archive, entry), parents first."""
    top = await files.stat(path)
    base = top.name
    waiting = [(path, base, top)]
    while waiting:
        here, within, entry = waiting.pop()
        if within:
            yield here, within, entry
        if not stat.S_ISDIR(entry.attributes.mode):
            continue
        after: bytes | None = b""
        below: list[tuple[bytes, bytes, Entry]] = []
        while after is not None:
            found, after = await files.list(here, after, _PAGE)
            below += [(join(here, child.name), join(within, child.name), child) for child in found]
        waiting += reversed(below)


async def _content(files: Files, path: bytes, size: int) -> AsyncGenerator[bytes, None]:
    """Yield a file's content. Raises Stale: it is no longer as long as was said."""
    async with files.reading(path) as (attributes, read):
        if attributes.size != size:
            raise Stale("a file was changed while it was packed")
        for offset in range(0, size, CHUNK_BYTES):
            chunk = await read(offset, min(CHUNK_BYTES, size - offset))
            if len(chunk) < min(CHUNK_BYTES, size - offset):
                raise Stale("a file was cut while it was packed")
            yield chunk
            await trio.lowlevel.checkpoint()


async def tar(files: Files, path: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a directory as a tar archive, without sockets, as tar(1) has it. Raises Stale: it changes meanwhile."""
    names: dict[int, str] = {}
    async for here, within, entry in _walk(files, path):
        attributes = entry.attributes
        kind = _TYPES.get(stat.S_IFMT(attributes.mode))
        if kind is None:
            continue
        info = tarfile.TarInfo(within.decode("utf-8", "surrogateescape"))
        info.type, info.mode, info.mtime = kind, stat.S_IMODE(attributes.mode), int(attributes.mtime_ns // 10**9)
        info.uid, info.gid = attributes.uid, attributes.gid
        info.devmajor, info.devminor = os.major(attributes.rdev), os.minor(attributes.rdev)
        info.linkname = entry.target.decode("utf-8", "surrogateescape")
        if kind == tarfile.REGTYPE and attributes.nlink > 1:
            first = names.setdefault(attributes.ino, info.name)
            if first != info.name:
                info.type, info.linkname = tarfile.LNKTYPE, first
        has_content = info.type == tarfile.REGTYPE
        info.size = attributes.size if has_content else 0
        yield info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if has_content:
            async for chunk in _content(files, here, attributes.size):
                yield chunk
            yield bytes(-attributes.size % _BLOCK)
    yield bytes(2 * _BLOCK)


class _Sink:
    """What zipfile writes into."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._parts = b"".join(self._parts), []
        return taken


async def zip_(files: Files, path: bytes) -> AsyncGenerator[bytes, None]:
    """Yield a directory as a zip archive, not compressed; only files, directories and links.

    A time that zip cannot tell becomes the first or last one that it can.

    Raises:
        Stale: as ``tar``. NameTooLong: a path is longer than zip can hold; tar holds it.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]
        async for here, within, entry in _walk(files, path):
            attributes = entry.attributes
            kind = stat.S_IFMT(attributes.mode)
            if kind not in _ZIP_TYPES:
                continue
            name = within.decode("utf-8", "backslashreplace") + ("/" if kind == stat.S_IFDIR else "")
            if len(name.encode()) > _MAX_NAME_BYTES:
                raise NameTooLong(f"zip holds no path of more than {_MAX_NAME_BYTES} bytes: pack it as tar")
            moment = time.gmtime(min(max(attributes.mtime_ns // 10**9, _FIRST_S), _LAST_S))
            info = zipfile.ZipInfo(name, moment[:6])
            info.create_system, info.external_attr = 3, attributes.mode << 16
            if kind != stat.S_IFREG:
                archive.writestr(info, entry.target)
            else:
                with archive.open(info, "w", force_zip64=True) as member:
                    async for chunk in _content(files, here, attributes.size):
                        member.write(chunk)
                        yield sink.take()
            yield sink.take()
    yield sink.take()


FORMATS: Final = {"tar": (tar, "application/x-tar"), "zip": (zip_, "application/zip")}


async def check(files: Files, path: bytes) -> None:
    """Raise NotFound, or InvalidArgument: it is no directory, before anything is sent."""
    entry = await files.stat(path)
    if not stat.S_ISDIR(entry.attributes.mode):
        raise InvalidArgument("only a directory is packed; a file is read")
