"""What people do with a volume's snapshots: the routes of list, create, delete."""

from __future__ import annotations

import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any, Final

import attrs

from volgate.control.server import Reply, Route, json_reply
from volgate.core.names import SNAPSHOTS_NAME
from volgate.dto import SnapshotInfo, VolumeSnapshotContext
from volgate.errors import InvalidArgument
from volgate.vfs.file_system import FileSystem

log = logging.getLogger(__name__)

PATIENT: Final = frozenset({("POST", "/v1/snapshots"), ("POST", "/v1/snapshots/delete")})
"""Routes whose answer may take long."""


def routes(file_system: FileSystem) -> dict[tuple[str, str], Route]:
    """Return (method, path) to what answers."""
    volume = file_system.volume
    snapshots = volume.snapshots

    async def list_(_body: bytes) -> Reply:
        return json_reply([_describe(info) for info in await snapshots.list_all()])

    async def create(body: bytes) -> Reply:
        wanted = _object(body, {"snapshot_id", "metadata"})
        now = time.time()
        taken = {info.snapshot_id for info in await snapshots.list_all()}
        snapshot_id = wanted.get("snapshot_id") or _new_id(now, taken)
        try:
            context = VolumeSnapshotContext(
                volume.identity.volume_id, snapshot_id, Path(SNAPSHOTS_NAME.decode()) / snapshot_id, now,
                wanted.get("metadata") or {},
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise InvalidArgument(str(error)) from error
        info = await snapshots.create(context, file_system.turnstile.closed)
        took_s = time.time() - now
        log.info("a snapshot was taken", extra={"snapshot": snapshot_id, "files": info.file_count, "took_s": took_s})
        return json_reply({**_describe(info), "took_s": took_s})

    async def delete(body: bytes) -> Reply:
        snapshot_id = _object(body, {"snapshot_id"}).get("snapshot_id")
        if not isinstance(snapshot_id, str):
            raise InvalidArgument("the body is an object with 'snapshot_id'")
        await snapshots.delete(snapshot_id)
        log.info("a snapshot was deleted", extra={"snapshot": snapshot_id})
        return json_reply({})

    return {
        ("GET", "/v1/snapshots"): list_,
        ("POST", "/v1/snapshots"): create,
        ("POST", "/v1/snapshots/delete"): delete,
    }


def _describe(info: SnapshotInfo) -> dict[str, Any]:
    return {**attrs.asdict(info, recurse=False), "metadata": dict(info.metadata)}


def _new_id(now: float, taken: set[str]) -> str:
    """Return an id for a snapshot that nobody gave one: when it was taken, UTC."""
    moment = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(now))
    return next(name for n in itertools.count(1) if (name := moment if n == 1 else f"{moment}-{n}") not in taken)


def _object(body: bytes, known: set[str]) -> dict[str, Any]:
    """Return a body that is a JSON object of known members. Raises InvalidArgument."""
    try:
        found = json.loads(body or b"{}")
    except ValueError as error:
        raise InvalidArgument(f"the body is no JSON: {error}") from error
    if not isinstance(found, dict) or not set(found) <= known:
        raise InvalidArgument(f"the body is an object of {', '.join(sorted(known))}")
    return found
