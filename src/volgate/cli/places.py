"""What SOURCE and TARGET of a copy mean: a path in a mount, a volume with a path, or a directory of this host."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

import attrs

from volgate.cli.mounts import find, is_data, is_known, mount_of
from volgate.cli.owners import find_served
from volgate.control.client import ask
from volgate.core.names import SNAPSHOTS_NAME
from volgate.dto.validation import VOLUME_ID
from volgate.errors import InvalidArgument, NotFound

_NAMED: Final = re.compile(rf"({VOLUME_ID.pattern}):(.*)", re.DOTALL)


@attrs.frozen
class NamedPlace:
    """A place that a user named.

    Attributes:
        volume: status of whoever serves it; None = nobody does.
        text: then the directory, URL or volume's id that the path is in. path: without slashes at its ends.
    """

    volume: dict[str, Any] | None
    text: str
    path: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(self.path) or os.path.basename(self.text.rstrip("/"))


def find_place(text: str) -> NamedPlace:
    """Return what a user named: ``/mnt/data/some/where``, ``VOLUME:some/where``, a URL, or any other path.

    Raises:
        Unavailable: its daemon cannot be asked.
    """
    named = _NAMED.fullmatch(text)
    if named is not None and "://" not in text and not os.path.lexists(text):
        path = named[2].strip("/")
        try:
            return NamedPlace(find(named[1], owner=True), "", path)
        except NotFound:
            return NamedPlace(None, named[1], path)
    if "://" in text:
        try:
            return NamedPlace(find(text, owner=True), "", "")
        except NotFound:
            return NamedPlace(None, text, "")
    path = os.path.abspath(text)
    for candidate in (path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))):
        mount_point = mount_of(candidate)
        if mount_point is not None:
            path = os.path.relpath(candidate, mount_point)
            return NamedPlace(find_served(mount_point), "", "" if path == "." else path)
    data = _data_around(path)
    if data is None:
        return NamedPlace(None, path, "")
    below = "" if data == path else os.path.relpath(path, data)
    try:
        return NamedPlace(find(data, owner=True), "", below)
    except NotFound:
        return NamedPlace(None, data, below)


def _data_around(path: str) -> str | None:
    """Return the directory with a volume's data that a path is, or lies in; None = there is none."""
    above = (str(above) for above in (Path(path), *Path(path).parents))
    return next((place for place in above if is_data(place)), None)


def to_request(kind: str, source_text: str, target_text: str, **options: Any) -> tuple[dict[str, Any], Path]:
    """Return the request that a copy is, and the socket of whom to ask.

    Args:
        target_text: with a slash at its end, the source gets into it under its own name.

    Raises:
        NotFound, InvalidArgument: one of the places is none.
    """
    source, target = find_place(source_text), find_place(target_text)
    if target.volume is None and target.text.startswith("/") and _data_around(target.text) is None:
        way = _how_to_name(target_text) or "only what volgate serves is copied into"
        raise InvalidArgument(f"{target_text} lies in no volume; {way}")
    if source.volume is None and source.text.startswith("/") and not os.path.lexists(source.text):
        way = _how_to_name(source_text)
        raise NotFound(f"there is no {source.text}" + (f"; {way}" if way else ""))
    volume = target.volume or find_served(target.text)
    path = target.path
    if target_text.endswith("/") or (kind == "copy" and not path):
        path = f"{path}/{source.name}".strip("/")
    name = source_text if _NAMED.fullmatch(source_text) or "://" in source_text else os.path.abspath(source_text)
    request = {
        "kind": kind,
        "source_name": name,
        "target_path": path,
        "source_path": source.path,
        **options,
        **_name(source, volume),
    }
    return request, Path(volume["socket"])


def _how_to_name(text: str) -> str:
    """Return how a place in a volume is named, where that was meant; else ""."""
    name = text.partition("/")[0]
    return f"a place in the volume {name} is {name}:PATH" if is_known(name) else ""


def _name(source: NamedPlace, target: dict[str, Any]) -> dict[str, Any]:
    """Return how the owner of the target finds a source."""
    if source.volume is None:
        return _name_other(source.text, source.path)
    top, _, rest = source.path.partition("/")
    is_snapshot = top == SNAPSHOTS_NAME.decode()
    snapshot_id, _, below = rest.partition("/")
    if is_snapshot and not snapshot_id:
        raise InvalidArgument("name one of the snapshots: .snapshots/ID")
    if source.volume["uuid"] == target["uuid"]:
        return {"snapshot_id": snapshot_id, "source_path": below} if is_snapshot else {}
    if is_snapshot and source.volume["mount_point"] is None:
        raise _unseen(source.volume["volume_id"])
    if is_snapshot:  # its owner shows it in the mount
        place = os.path.join(source.volume["mount_point"], top, snapshot_id)
        return {"source_type": "posix", "source_text": place, "source_path": below}
    lies = ask(Path(source.volume["socket"]), "GET", "/v1/source")
    return {
        "source_type": lies["type"],
        "source_text": lies["text"],
        "source_options": lies["options"],
        "source_volume": source.volume["volume_id"],
    }


def _unseen(volume: str) -> InvalidArgument:
    return InvalidArgument(f"the snapshots of {volume} are seen while it is mounted: mount it")


def _name_other(text: str, path: str) -> dict[str, Any]:
    is_snapshot = path.partition("/")[0] == SNAPSHOTS_NAME.decode()
    if "/" not in text or "://" in text:
        from volgate.cli.sources import resolve_with_configuration

        where = resolve_with_configuration(text)
        if is_snapshot:
            raise _unseen(text)
        return {
            "source_type": where.backend_type, "source_text": where.text, "source_options": dict(where.options),
            "source_path": path,
        }  # fmt: skip
    if is_snapshot:
        raise _unseen(text)
    if path or os.path.isdir(text):
        return {"source_type": "posix", "source_text": text, "source_path": path}
    above, name = os.path.split(text)
    return {"source_type": "posix", "source_text": above, "source_path": name}
