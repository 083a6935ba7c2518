"""Files of volumes, for programs without a mount: all is asked of the volume's owner, content passes through."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from volgate.control import convert
from volgate.control.dto.fields import RelativePath
from volgate.control.dto.request import DeleteFileRequest, MakeDirectoryRequest, MoveFileRequest
from volgate.control.dto.response import FileField, FilePage
from volgate.control.paging import DEFAULT_LIMIT, After, Limit, decode_cursor, encode_cursor
from volgate.control.problems import Refusal
from volgate.control.roles import Role
from volgate.control.routes.shared import InVolume, Services, Using, ask_owner, hold_owner, may
from volgate.control.routes.streaming import Streamed
from volgate.errors import InvalidArgument

router = APIRouter(tags=["files"], prefix="/volumes/{volume_id}/files")
_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
AtPath = Annotated[RelativePath, Query(description="From the root of the volume; '' is the root.")]
_BYTES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/octet-stream": {}}}, 206: {"content": {"application/octet-stream": {}}},
}  # fmt: skip

_PACKED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"application/x-tar": {}, "application/zip": {}}},
}  # fmt: skip


async def _ask(services: Services, volume_id: str, verb: str, body: Any) -> Any:
    return await ask_owner(services, volume_id, "POST", f"/v1/files/{verb}", body)


@router.get("", dependencies=[may(Role.READER)])
async def list_files(
    services: Using, volume_id: InVolume, path: AtPath = "", limit: Limit = DEFAULT_LIMIT, cursor: After = None
) -> FilePage:
    """List a directory by name; what is below it is not listed."""
    after = "" if cursor is None else decode_cursor(cursor, 1)[0]
    if not isinstance(after, str):
        raise InvalidArgument("the cursor is another list's")
    found = await _ask(services, volume_id, "list", {"path": path, "after": after, "limit": limit})
    next_cursor = encode_cursor((found["last"],)) if found["more"] else None
    return FilePage(items=[convert.file_from_owner(entry) for entry in found["entries"]], next_cursor=next_cursor)


@router.get("/stat", dependencies=[may(Role.READER)])
async def stat_file(services: Using, volume_id: InVolume, path: AtPath = "") -> FileField:
    """Say what stands at a path; of a symlink, where it leads: it is never followed."""
    return convert.file_from_owner(await _ask(services, volume_id, "stat", {"path": path}))


@router.post("/mkdir", status_code=201, dependencies=[may(Role.OWNER)])
async def make_directory(services: Using, volume_id: InVolume, request: MakeDirectoryRequest) -> FileField:
    """Make a directory."""
    body = {"path": request.path, "parents": request.parents}
    return convert.file_from_owner(await _ask(services, volume_id, "mkdir", body))


@router.post("/move", status_code=204, dependencies=[may(Role.OWNER)])
async def move_file(services: Using, volume_id: InVolume, request: MoveFileRequest) -> None:
    """Give a file or directory another path, where nothing is."""
    await _ask(services, volume_id, "move", {"source": request.source, "target": request.target})


@router.post("/delete", status_code=204, dependencies=[may(Role.OWNER)])
async def delete_file(services: Using, volume_id: InVolume, request: DeleteFileRequest) -> None:
    """Remove a file, or a directory; with all below it where that is said."""
    await _ask(services, volume_id, "delete", {"path": request.path, "recursive": request.recursive})


@router.get(
    "/content", dependencies=[may(Role.READER)], response_class=StreamingResponse, responses=_BYTES
)  # fmt: skip
async def download(
    services: Using, volume_id: InVolume, path: AtPath, range_: Annotated[str | None, Header(alias="Range")] = None
) -> Response:
    """Read a file, or one range of it. An answer that ends early is cut, never shortened."""
    entry = await _ask(services, volume_id, "stat", {"path": path})
    begin, end, is_part = _parse_range(range_, entry["size"])
    headers = {
        "accept-ranges": "bytes",
        "content-length": str(end - begin),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(convert.file_from_owner(entry).name, safe='')}",
        "etag": f'"{entry["mtime_ns"]}-{entry["size"]}"',
        "x-content-type-options": "nosniff",
    }
    if is_part:
        headers["content-range"] = f"bytes {begin}-{end - 1}/{entry['size']}"
    target = f"/v1/files/content?{urlencode({'path': path, 'offset': begin, 'length': end - begin})}"
    return await _pass_on(services, volume_id, target, "application/octet-stream", headers, 206 if is_part else 200)


def _parse_range(text: str | None, size: int) -> tuple[int, int, bool]:
    """Return where to begin and end, and whether that is a part (RFC 9110, 14.2); what is no single range is all."""
    found = _RANGE.fullmatch(text or "")
    if found is None or not (found[1] or found[2]):
        return 0, size, False
    if not found[1]:
        begin, end = max(0, size - int(found[2])), size
    else:
        begin, end = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if begin >= end:
        raise Refusal("range_not_satisfiable", f"the file has {size} bytes")
    return begin, end, True


@router.get("/archive", dependencies=[may(Role.READER)], response_class=StreamingResponse, responses=_PACKED)
async def download_archive(
    services: Using,
    volume_id: InVolume,
    path: AtPath = "",
    format_: Annotated[Literal["tar", "zip"], Query(alias="format")] = "tar",
) -> Response:
    """Read a directory with all below it as one archive; links are packed as links.

    What a format does not know is left out, and nothing tells of it: of tar sockets; of zip sockets, fifos and devices,
    and a zip has a name that is no UTF-8 as the list shows it.
    """
    name = path.rstrip("/").rpartition("/")[2] or volume_id
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(f'{name}.{format_}', safe='')}",
        "x-content-type-options": "nosniff",
    }
    target = f"/v1/files/archive?{urlencode({'path': path, 'format': format_})}"
    media_type = "application/x-tar" if format_ == "tar" else "application/zip"
    return await _pass_on(services, volume_id, target, media_type, headers, 200)


async def _pass_on(
    services: Services, volume_id: str, target: str, media_type: str, headers: dict[str, str], status: int
) -> Response:
    """Return what an owner answers in a stream, once it has begun."""
    await hold_owner(services, volume_id)
    async with contextlib.AsyncExitStack() as stack:
        pieces = await stack.enter_async_context(services.owners.reading(volume_id, target))
        held = stack.pop_all()
    return Streamed(pieces, held, status, headers, media_type)


@router.put("/content", status_code=201, dependencies=[may(Role.OWNER)])
async def upload(
    services: Using, volume_id: InVolume, request: Request, path: AtPath, overwrite: bool = False
) -> FileField:
    """Store a file of `Content-Length` bytes, whole or not at all; refused at once where it does not fit."""
    announced = request.headers.get("content-length", "")
    if not announced.isdigit():
        raise Refusal("length_required", "say how long the content is: Content-Length")
    await hold_owner(services, volume_id)
    target = f"/v1/files/content?{urlencode({'path': path, 'overwrite': str(overwrite).lower()})}"
    stored = await services.owners.store(volume_id, target, _content_of(request), int(announced))
    return convert.file_from_owner(stored)


async def _content_of(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect as error:
        raise Refusal("malformed_request", "the content ended early") from error
