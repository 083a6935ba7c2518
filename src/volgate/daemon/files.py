"""What programs without a mount do with a volume's files: list, stat, mkdir, move, delete, content, archive."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

import attrs

from volgate.control.server import Reply, Route, Stream, StreamRoute, Upload, json_reply
from volgate.daemon.bodies import to_object
from volgate.errors import InvalidArgument
from volgate.vfs.archives import FORMATS, check
from volgate.vfs.files import CHUNK_BYTES, Entry, Files, to_path

PATIENT: Final = frozenset({("POST", f"/v1/files/{verb}") for verb in ("list", "mkdir", "move", "delete")})
"""Routes whose answer may take long."""
_MOST: Final = 1000
UnderWay = Callable[[str], contextlib.AbstractContextManager[None]]


def routes(files: Files) -> dict[tuple[str, str], Route]:
    """Return (method, path) to what answers."""

    async def list_(body: bytes) -> Reply:
        wanted = to_object(body, {"path", "after", "limit"})
        limit = wanted.get("limit", _MOST)
        if type(limit) is not int or not 1 <= limit <= _MOST:
            raise InvalidArgument(f"'limit' is a number from 1 to {_MOST}")
        after = os.fsencode(_text(wanted, "after", ""))
        entries, last = await files.list(to_path(_text(wanted, "path")), after, limit)
        found = {"entries": [describe(entry) for entry in entries], "more": last is not None}
        return json_reply({**found, "last": None if last is None else os.fsdecode(last)})

    async def stat(body: bytes) -> Reply:
        return json_reply(describe(await files.stat(to_path(_text(to_object(body, {"path"}), "path")))))

    async def mkdir(body: bytes) -> Reply:
        wanted = to_object(body, {"path", "parents"})
        made = await files.make_directory(to_path(_text(wanted, "path")), parents=_flag(wanted, "parents"))
        return json_reply(describe(made))

    async def move(body: bytes) -> Reply:
        wanted = to_object(body, {"source", "target"})
        await files.move(to_path(_text(wanted, "source")), to_path(_text(wanted, "target")))
        return json_reply({})

    async def delete(body: bytes) -> Reply:
        wanted = to_object(body, {"path", "recursive"})
        await files.remove(to_path(_text(wanted, "path")), recursive=_flag(wanted, "recursive"))
        return json_reply({})

    return {
        ("POST", "/v1/files/list"): list_,
        ("POST", "/v1/files/stat"): stat,
        ("POST", "/v1/files/mkdir"): mkdir,
        ("POST", "/v1/files/move"): move,
        ("POST", "/v1/files/delete"): delete,
    }


def streams(files: Files, under_way: UnderWay) -> dict[tuple[str, str], StreamRoute]:
    """Return (method, path) to what answers in a stream; ``under_way`` names each for as long as it runs."""

    async def download(parameters: Mapping[str, str], _upload: Upload) -> Stream:
        """Answer with [offset, offset + length) of a file; its size is told by ``stat``."""
        path = to_path(_text(parameters, "path"))
        offset = _number(parameters, "offset") or 0
        size = (await files.stat(path)).attributes.size
        rest = max(0, size - offset)
        wanted = _number(parameters, "length")
        length = rest if wanted is None else min(wanted, rest)

        async def pieces() -> AsyncGenerator[bytes, None]:
            with under_way("download"):
                async with files.reading(path) as (_, read):
                    done = 0
                    while done < length:
                        piece = await read(offset + done, min(CHUNK_BYTES, length - done))
                        if not piece:
                            raise InvalidArgument("the file was cut while it was read")
                        done += len(piece)
                        yield piece

        async with files.reading(path):  # so that what cannot be read is told before anything is sent
            return Stream("application/octet-stream", length, pieces())

    async def upload(parameters: Mapping[str, str], content: Upload) -> Reply:
        """Store a file of the announced length."""
        if content.length is None:
            raise InvalidArgument("say how long it is: Content-Length")
        path, overwrite = to_path(_text(parameters, "path")), parameters.get("overwrite") == "true"
        with under_way("upload"):
            stored = await files.write(path, content.length, content.pieces, overwrite=overwrite)
        return json_reply(describe(stored))

    async def archive(parameters: Mapping[str, str], _upload: Upload) -> Stream:
        """Answer with a directory as one archive."""
        path, kind = to_path(_text(parameters, "path")), parameters.get("format", "tar")
        if kind not in FORMATS:
            raise InvalidArgument(f"'format' is one of {', '.join(sorted(FORMATS))}")
        await check(files, path)
        pack, content_type = FORMATS[kind]

        async def pieces() -> AsyncGenerator[bytes, None]:
            with under_way("archive"):
                async with contextlib.aclosing(pack(files, path)) as packed:
                    async for piece in packed:
                        yield piece

        return Stream(content_type, None, pieces())

    return {
        ("GET", "/v1/files/content"): download,
        ("PUT", "/v1/files/content"): upload,
        ("GET", "/v1/files/archive"): archive,
    }


def describe(entry: Entry) -> dict[str, Any]:
    """Return an entry for JSON; names that are not UTF-8 as ``os.fsdecode`` has them."""
    return {
        "name": os.fsdecode(entry.name),
        "target": os.fsdecode(entry.target) if entry.target else None,
        **attrs.asdict(entry.attributes),
    }


def _text(wanted: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = wanted.get(name, default)
    if not isinstance(found, str):
        raise InvalidArgument(f"'{name}' is text, and has to be said")
    return found


def _flag(wanted: Mapping[str, Any], name: str) -> bool:
    found = wanted.get(name, False)
    if not isinstance(found, bool):
        raise InvalidArgument(f"'{name}' is true or false")
    return found


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidArgument(f"'{name}' is a number of bytes")
    return int(text)
