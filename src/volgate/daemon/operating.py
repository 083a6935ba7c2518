"""What people do with a mount whose backend keeps changes back: the routes of flush, refresh, quarantine, gc, count."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from volgate.control.server import Reply, Route, json_reply
from volgate.daemon.session import Session
from volgate.drivers.base import BaseStorageBackend
from volgate.drivers.report import BackendQuarantine
from volgate.errors import InvalidArgument, Unsupported
from volgate.volume.counting import count_usage
from volgate.volume.volume import Volume

log = logging.getLogger(__name__)

_SHOWN: Final = 20
"""How many of the keys that no name can show are named."""
PATIENT: Final = frozenset(
    {("POST", "/v1/flush"), ("GET", "/v1/drained"), ("POST", "/v1/refresh"), ("POST", "/v1/gc"), ("POST", "/v1/count")}
    | {("POST", f"/v1/quarantine/{verb}") for verb in ("retry", "export", "drop")}
)
"""Routes whose answer may take long."""
DRAINED: Final = frozenset({("POST", "/v1/flush")})
"""Those that are answered by the end of a daemon, too: the storage has everything then."""
BROKEN_OFF: Final = frozenset({("POST", "/v1/count")})
"""Those that may be broken off where the daemon has to end."""


def describe(backend: BaseStorageBackend) -> dict[str, Any] | None:
    """Return a backend's report for status, None where it has none."""
    report = backend.report()
    if report is None:
        return None
    unshown = backend.unshown()
    first = [{"key": key, "reason": unshown[key]} for key in sorted(unshown)[:_SHOWN]]
    return {**attrs.asdict(report), "unshown": len(unshown), "unshown_first": first}


def routes(volume: Volume, session: Session) -> dict[tuple[str, str], Route]:
    """Return (method, path) to what answers."""
    backend = volume.backend

    async def flush(_body: bytes) -> Reply:
        if session.is_serving():
            await backend.drain()
        else:  # the daemon is at it already, for the last time
            await volume.drained.wait()
        report = backend.report()
        return json_reply({} if report is None else attrs.asdict(report))

    async def drained(_body: bytes) -> Reply:
        """Answer when the volume is unmounted and nothing more is stored: what is left then."""
        await volume.drained.wait()
        report = backend.report()
        return json_reply({} if report is None else attrs.asdict(report))

    async def refresh(_body: bytes) -> Reply:
        backend.refresh()
        await session.drop_caches()
        return json_reply({})

    async def collect(body: bytes) -> Reply:
        older_than_s = _member(body, "older_than_s", float)
        if volume.read_only:
            raise InvalidArgument("the volume is mounted read-only")
        return json_reply(attrs.asdict(await backend.collect_garbage(older_than_s)))

    async def count(body: bytes) -> Reply:
        keep = _member(body, "keep", bool)
        if not backend.capabilities.keeps_usage:
            if keep:
                raise Unsupported("its ledger is repaired while it is not mounted")
            usage = await count_usage(backend, volume.root)
        elif volume.read_only:
            raise Unsupported("who reads a bucket knows nothing of what its owner has not uploaded")
        else:
            usage = await backend.count_usage(lambda _: None, keep=keep)
        return json_reply({"used_bytes": usage.bytes_, "file_count": usage.inodes})

    async def list_(_body: bytes) -> Reply:
        return json_reply([attrs.asdict(change) for change in _quarantine(backend).list()])

    async def retry(body: bytes) -> Reply:
        await _quarantine(backend).retry(_member(body, "name", str))
        await session.drop_caches()
        return json_reply({})

    async def export(body: bytes) -> Reply:
        await _quarantine(backend).export(_member(body, "name", str), Path(_member(body, "path", str)))
        return json_reply({})

    async def drop(body: bytes) -> Reply:
        name = _member(body, "name", str)
        await _quarantine(backend).drop(name)
        log.warning("a change was given up, as was asked for", extra={"key": name})
        await session.drop_caches()
        return json_reply({})

    return {
        ("POST", "/v1/flush"): flush,
        ("GET", "/v1/drained"): drained,
        ("POST", "/v1/refresh"): refresh,
        ("POST", "/v1/gc"): collect,
        ("POST", "/v1/count"): count,
        ("GET", "/v1/quarantine"): list_,
        ("POST", "/v1/quarantine/retry"): retry,
        ("POST", "/v1/quarantine/export"): export,
        ("POST", "/v1/quarantine/drop"): drop,
    }


def _quarantine(backend: BaseStorageBackend) -> BackendQuarantine:
    if backend.quarantine is None:
        raise Unsupported("this volume writes to its storage at once; nothing of it can be in quarantine")
    return backend.quarantine


def _member(body: bytes, name: str, convert: Callable[[Any], Any]) -> Any:
    """Return a member of a body that is a JSON object. Raises InvalidArgument."""
    try:
        return convert(json.loads(body)[name])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgument(f"the body is an object with '{name}'") from error
