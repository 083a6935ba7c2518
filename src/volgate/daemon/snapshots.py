"""What people do with a volume's snapshots: the routes of list, create, diff, restore and delete.

A restore is noted beside the data until it is done: one that was cut off goes on when the volume is mounted again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import operator
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from volgate.control.server import Reply, Route, json_reply
from volgate.core.names import SNAPSHOTS_NAME
from volgate.daemon.activity import Activity
from volgate.daemon.bodies import to_object
from volgate.daemon.schedule import Schedule
from volgate.daemon.session import Session
from volgate.dto import SnapshotInfo, VolumeSnapshotContext
from volgate.dto.validation import check_snapshot_id
from volgate.errors import Busy, InvalidArgument, QuotaExceeded, ShuttingDown, StorageException, Unsupported
from volgate.vfs.file_system import FileSystem
from volgate.vfs.files import to_path
from volgate.vfs.restoring import Restore, report
from volgate.volume.snapshots.base import NoSnapshots, Place
from volgate.volume.snapshots.comparing import TreeChange, compare, compare_at, settle_links
from volgate.volume.storage import load_patiently
from volgate.volume.volume import Volume

log = logging.getLogger(__name__)

PATIENT: Final = frozenset(
    {("POST", "/v1/snapshots")} | {("POST", f"/v1/snapshots/{verb}") for verb in ("delete", "diff", "restore")}
)
"""Routes whose answer may take long."""
BROKEN_OFF: Final = frozenset({("POST", f"/v1/snapshots/{verb}") for verb in ("diff", "restore")})
"""Those that may be broken off where the daemon has to end: the next one goes on with a restore."""

_UNDER_WAY: Final = "restore.json"


@attrs.frozen
class _UnderWay:
    """What is noted of a restore.

    Attributes:
        snapshot_id, path, transfer_id: see Restore; the path as text.
    """

    snapshot_id: str = attrs.field(validator=check_snapshot_id)
    path: str = attrs.field(validator=attrs.validators.instance_of(str))
    transfer_id: str = attrs.field(validator=attrs.validators.matches_re("[0-9a-f]+"))


class _Restores:
    """Restores of a volume, one at a time."""

    def __init__(self, file_system: FileSystem, session: Session, activity: Activity) -> None:
        self._fs = file_system
        self._session = session
        self._activity = activity
        self._lock = trio.Lock()
        self._snapshot_id = ""

    async def delete(self, snapshot_id: str) -> None:
        """Delete a snapshot. Raises NotFound; Busy: it is being restored."""
        if self._lock.locked() and snapshot_id == self._snapshot_id:
            raise Busy(f"the snapshot {snapshot_id} is being restored")
        await self._fs.volume.snapshots.delete(snapshot_id)

    async def run(self, snapshot_id: str, path: str, *, dry_run: bool, transfer_id: str | None = None) -> Reply:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock as error:
            raise Busy("another restore of this volume is under way") from error
        transfer_id = transfer_id or secrets.token_hex(8)
        self._snapshot_id = snapshot_id
        try:
            restore = Restore(self._fs, snapshot_id, _to_bytes(path), transfer_id)
            async with self._fs.volume.snapshots.held(snapshot_id):
                changes = await restore.plan()
            refused = ""
            if dry_run:
                try:
                    restore.check_quota(changes)
                except QuotaExceeded as error:
                    refused = str(error)
            else:
                await self._note(_UnderWay(snapshot_id, path, transfer_id))
                try:
                    await restore.run(changes)
                finally:
                    with trio.CancelScope(shield=True):
                        await self._session.drop_caches(restore.touched)
                await self._note(None)
                log.info(
                    "restored",
                    extra={
                        "event": "snapshot.restored",
                        "snapshot": snapshot_id,
                        "path": path,
                        "changes": len(changes),
                    },
                )
            described = [{**_describe_change(change), "change": change.undone} for change in changes]
            return json_reply({**attrs.asdict(report(changes)), "changes": described, "refused": refused})
        except StorageException:
            await self._note(None)  # somebody was told
            raise
        except trio.Cancelled:
            if self._session.is_serving() and not dry_run:  # who asked for it went away, and the daemon stays
                with trio.CancelScope(shield=True):
                    await self._note(None)
                facts = {"snapshot": snapshot_id, "path": path}
                log.warning("a restore was broken off", extra={"event": "snapshot.broken_off", **facts})
            raise
        finally:
            self._lock.release()

    async def _note(self, under_way: _UnderWay | None) -> None:
        noted = None if under_way is None else attrs.asdict(under_way)
        await self._fs.volume.backend.store_reserved(_UNDER_WAY, json.dumps(noted).encode())

    async def resume(self) -> None:
        """Go on with a restore that the end of an earlier process cut off."""
        if isinstance(self._fs.volume.snapshots, NoSnapshots):
            return
        try:
            found = json.loads(await load_patiently(self._fs.volume.backend, _UNDER_WAY) or b"null")
            under_way = None if found is None else _UnderWay(**found)
        except StorageException as error:
            log.error("whether a restore was cut off is not known", extra={"error": str(error)})  # noqa: TRY400
            return
        except (ValueError, TypeError):
            log.error("what is noted of a restore that was cut off is damaged; restore again")  # noqa: TRY400
            with contextlib.suppress(StorageException):
                await self._note(None)
            return
        if under_way is None:
            return
        facts = {"snapshot": under_way.snapshot_id, "path": under_way.path}
        log.warning("a restore that was cut off goes on", extra=facts)
        try:
            with self._activity.under_way("restore that was cut off", "broken off"):
                await self.run(under_way.snapshot_id, under_way.path, dry_run=False, transfer_id=under_way.transfer_id)
        except ShuttingDown:
            raise
        except StorageException as error:
            log.error("the restore could not go on", extra={**facts, "error": str(error)})  # noqa: TRY400


def routes(
    file_system: FileSystem, session: Session, activity: Activity
) -> tuple[dict[tuple[str, str], Route], Callable[[], Awaitable[None]]]:
    """Return (method, path) to what answers, and what goes on in the background.

    Run that once the volume is served: it carries a restore on that was cut off, and then keeps the schedule.

    Args:
        activity: is told what goes on in the background.
    """
    restores = _Restores(file_system, session, activity)

    async def take(metadata: dict[str, str]) -> SnapshotInfo:
        with activity.under_way("snapshot of the schedule"):
            info = await _take(file_system, None, metadata)
        return info

    async def delete(snapshot_id: str) -> None:
        with activity.under_way("end of a snapshot of the schedule"):
            await restores.delete(snapshot_id)

    schedule = Schedule(file_system.volume, take, delete)
    allowance = file_system.volume.snapshots.allowance
    if allowance is not None:
        allowance.make_room = schedule.let_one_go

    async def run() -> None:
        await restores.resume()
        await schedule.run()

    return _routes(file_system, restores, schedule), run


async def _take(
    file_system: FileSystem, snapshot_id: str | None, metadata: dict[str, str], path: str = ""
) -> SnapshotInfo:
    """Take a snapshot; without an id it is named by the moment. Raises InvalidArgument, and as ``create`` does."""
    if path and not file_system.volume.backend.capabilities.file_snapshots:
        raise Unsupported(
            "this storage takes no snapshots of single files; leave the file out to take all of the volume"
        )
    snapshots, now = file_system.volume.snapshots, time.time()
    if snapshot_id is None:
        snapshot_id = _new_id(now, {info.snapshot_id for info in await snapshots.list_all()})
    try:
        context = VolumeSnapshotContext(
            file_system.volume.identity.volume_id,
            snapshot_id,
            Path(SNAPSHOTS_NAME.decode()) / snapshot_id,
            now,
            metadata,
            path=path,
        )
    except (TypeError, ValueError) as error:
        raise InvalidArgument(str(error)) from error
    info = await snapshots.create(context, file_system.turnstile.closed)
    took_s = round(time.time() - now, 3)
    facts = {"snapshot": snapshot_id, "files": info.file_count, "took_s": took_s}
    log.info("a snapshot was taken", extra={"event": "snapshot.taken", **facts})
    return info


def _routes(file_system: FileSystem, restores: _Restores, schedule: Schedule) -> dict[tuple[str, str], Route]:
    volume = file_system.volume
    snapshots = volume.snapshots

    async def list_(_body: bytes) -> Reply:
        if isinstance(snapshots, NoSnapshots):
            raise Unsupported(snapshots.reason)
        return json_reply([_describe(info) for info in await snapshots.list_all()])

    async def create(body: bytes) -> Reply:
        wanted = to_object(body, {"snapshot_id", "metadata", "path"})
        started = time.monotonic()
        if wanted.get("snapshot_id") is not None:
            _text(wanted, "snapshot_id")
        path = to_path(_text(wanted, "path")) if wanted.get("path") else b""
        info = await _take(file_system, wanted.get("snapshot_id"), _metadata(wanted), _to_utf8(path))
        return json_reply({**_describe(info), "took_s": round(time.monotonic() - started, 3)})

    async def show_schedule(_body: bytes) -> Reply:
        return json_reply({"policy": None if schedule.policy is None else str(schedule.policy)})

    async def set_schedule(body: bytes) -> Reply:
        wanted = to_object(body, {"policy"})
        if isinstance(snapshots, NoSnapshots):
            raise Unsupported(snapshots.reason)
        await schedule.set_policy(None if wanted.get("policy") is None else _text(wanted, "policy"))
        return await show_schedule(b"")

    async def show_limit(_body: bytes) -> Reply:
        if isinstance(snapshots, NoSnapshots):
            raise Unsupported(snapshots.reason)
        return json_reply(describe_allowance(volume))

    async def set_limit(body: bytes) -> Reply:
        limit_bytes = to_object(body, {"limit_bytes"}).get("limit_bytes")
        if limit_bytes is not None and (type(limit_bytes) is not int or limit_bytes < 0):
            raise InvalidArgument("'limit_bytes' is a number of bytes, or null")
        if isinstance(snapshots, NoSnapshots):
            raise Unsupported(snapshots.reason)
        await volume.set_snapshot_limit(limit_bytes)
        log.info(
            "the limit of snapshots was changed", extra={"event": "snapshot.limit_changed", "limit_bytes": limit_bytes}
        )
        return json_reply(describe_allowance(volume))

    async def diff(body: bytes) -> Reply:
        wanted = to_object(body, {"snapshot_id", "later_id"})
        snapshot_id, later_id = _text(wanted, "snapshot_id"), wanted.get("later_id")
        async with contextlib.AsyncExitStack() as held:
            before = await held.enter_async_context(snapshots.held(snapshot_id))
            after = Place(volume.backend, volume.root)
            if later_id is not None:
                after = later = await held.enter_async_context(snapshots.held(_text(wanted, "later_id")))
                if later.path not in (b"", before.path):
                    raise InvalidArgument(f"{later_id} holds only {os.fsdecode(later.path)!r}, and {snapshot_id} more")
            changed = snapshots.changed_since(snapshot_id, later_id)
            file = before.path
            looked = compare_at(before, after, changed, file) if file else compare(before, after, changed, links=True)
            found = [_describe_change(change) for change in (await settle_links(looked))[0]]
        return json_reply(sorted(found, key=operator.itemgetter("path")))

    async def restore(body: bytes) -> Reply:
        wanted = to_object(body, {"snapshot_id", "path", "dry_run"})
        path, dry_run = wanted.get("path", ""), wanted.get("dry_run", False)
        if not isinstance(path, str) or not isinstance(dry_run, bool):
            raise InvalidArgument("'path' is text, and 'dry_run' true or false")
        return await restores.run(_text(wanted, "snapshot_id"), path, dry_run=dry_run)

    async def delete(body: bytes) -> Reply:
        snapshot_id = _text(to_object(body, {"snapshot_id"}), "snapshot_id")
        await restores.delete(snapshot_id)
        log.info("a snapshot was deleted", extra={"event": "snapshot.deleted", "snapshot": snapshot_id})
        return json_reply({})

    return {
        ("GET", "/v1/snapshots"): list_,
        ("POST", "/v1/snapshots"): create,
        ("GET", "/v1/snapshots/schedule"): show_schedule,
        ("PUT", "/v1/snapshots/schedule"): set_schedule,
        ("GET", "/v1/snapshots/limit"): show_limit,
        ("PUT", "/v1/snapshots/limit"): set_limit,
        ("POST", "/v1/snapshots/diff"): diff,
        ("POST", "/v1/snapshots/restore"): restore,
        ("POST", "/v1/snapshots/delete"): delete,
    }


def describe_allowance(volume: Volume) -> dict[str, Any] | None:
    """Return what snapshots keep and may keep; None where the storage keeps what it likes."""
    allowance = volume.snapshots.allowance
    if allowance is None:
        return None
    return {"kept_bytes": allowance.kept_bytes, "limit_bytes": allowance.limit_bytes, "is_full": allowance.is_full}


def _describe(info: SnapshotInfo) -> dict[str, Any]:
    return {**attrs.asdict(info, recurse=False), "metadata": dict(info.metadata)}


def _describe_change(change: TreeChange) -> dict[str, Any]:
    path = change.path.decode("utf-8", "backslashreplace") or "."
    return {"path": path, "change": change.kind, "what": list(change.what)}


def _metadata(body: dict[str, Any]) -> dict[str, str]:
    """Return the text pairs of a new snapshot. Raises InvalidArgument."""
    found = body.get("metadata") or {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidArgument("'metadata' is an object of texts")
    for text in (*found, *found.values()):
        _to_bytes(text)
    return found


def _to_bytes(text: str) -> bytes:
    """Return a text as a file system has it. Raises InvalidArgument."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{text!r} is no text") from error


def _to_utf8(path: bytes) -> str:
    """Return a path as the control calls of a storage have it. Raises InvalidArgument."""
    try:
        return path.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{os.fsdecode(path)!r} is no UTF-8, so the storage cannot be told of it") from error


def _text(body: dict[str, Any], name: str) -> str:
    if not isinstance(body.get(name), str):
        raise InvalidArgument(f"the body is an object with '{name}'")
    return str(body[name])


def _new_id(now: float, taken: set[str]) -> str:
    """Return an id for a snapshot that nobody gave one: when it was taken, UTC."""
    moment = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(now))
    return next(name for n in itertools.count(1) if (name := moment if n == 1 else f"{moment}-{n}") not in taken)
