"""What a copy is asked to do, and the form in which that is kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import cattrs

from volgate.core.names import DRAFT_PREFIX, RESERVED_ROOT_NAMES, SNAPSHOTS_NAME
from volgate.dto.validation import check_not_negative, to_frozen_mapping
from volgate.errors import InvalidArgument

Kind = Literal["copy", "sync"]
_KINDS: Final[tuple[Kind, ...]] = ("copy", "sync")


def check_path(path: str) -> str:
    """Return a path within a volume, without slashes at its ends; "" = the root. Raises InvalidArgument."""
    path = path.strip("/")
    parts = path.split("/") if path else []
    if not _is_text(path):
        raise InvalidArgument(f"{path!a} is no text")
    if any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise InvalidArgument(f"{path!r} is no path within a volume")
    return path


@attrs.frozen
class CopyRequest:
    """What to copy, and how.

    Attributes:
        kind: "copy" makes what was not there, shown when it is whole; "sync" makes what is there like the source.
        source_path: from the source's root; "" = all of it.
        target_path: from the root of the volume that this is asked of.
        source_type, source_text, source_options: the source's ``Source``; "" = the volume itself.
        source_volume: id of the source's volume, "" = unknown; its owner is asked to store all before it is read.
        snapshot_id: of the volume itself; "" = as it is now.
        delete: remove what the source does not have ("sync").
        accept_losses: copy also what the target cannot keep all of.
        bytes_per_s: not faster than that; None = no limit.
        source_name: as who asks calls the source; "" = by where it lies.
    """

    kind: Kind = attrs.field(validator=attrs.validators.in_(_KINDS))
    source_path: str = attrs.field(validator=attrs.validators.instance_of(str))
    target_path: str = attrs.field(validator=attrs.validators.instance_of(str))
    source_type: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    source_text: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    source_options: Mapping[str, str] = attrs.field(factory=dict, converter=to_frozen_mapping, hash=False)
    source_volume: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    snapshot_id: str = attrs.field(default="", validator=attrs.validators.instance_of(str))
    delete: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    accept_losses: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    bytes_per_s: int | None = attrs.field(default=None, validator=check_not_negative)
    source_name: str = attrs.field(default="", validator=attrs.validators.instance_of(str))


def to_request(found: Mapping[str, Any]) -> CopyRequest:
    """Return a request as somebody sent it. Raises InvalidArgument: says what is wrong with it."""
    known = {attribute.name for attribute in attrs.fields(CopyRequest)}
    if unknown := sorted(set(found) - known):
        raise InvalidArgument(f"a copy has no '{unknown[0]}'; there are: {', '.join(sorted(known))}")
    try:
        request = CopyRequest(**found)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"this is no copy: {error}") from error
    if bool(request.source_type) != bool(request.source_text):
        raise InvalidArgument("a source is its type and its text")
    if request.delete and request.kind == "copy":
        raise InvalidArgument("a copy makes what was not there, so it deletes nothing; 'sync' does")
    if request.bytes_per_s is not None and not isinstance(request.bytes_per_s, int):
        raise InvalidArgument("'bytes_per_s' is a whole number")
    if not all(isinstance(text, str) for pair in request.source_options.items() for text in pair):
        raise InvalidArgument("'source_options' are texts")
    if "\0" in request.source_text or not _is_text(request.source_text + request.snapshot_id + request.source_volume):
        raise InvalidArgument("a source is named by text")
    if request.bytes_per_s == 0:
        raise InvalidArgument("at 0 bytes a second nothing would ever be copied")
    return _checked(request)


def _checked(request: CopyRequest) -> CopyRequest:
    source, target = check_path(request.source_path), check_path(request.target_path)
    reserved = {name.decode() for name in RESERVED_ROOT_NAMES}
    if target.split("/")[0] in reserved:
        raise InvalidArgument(f"{target!r} is not the users'")
    if any(part.startswith(DRAFT_PREFIX.decode()) for part in target.split("/")):
        raise InvalidArgument(f"names that begin with '{DRAFT_PREFIX.decode()}' are reserved")
    if request.kind == "copy" and not target:
        raise InvalidArgument("a copy needs the name that it shall have; 'sync' writes into what is there")
    is_same = not request.source_text
    if is_same and source.split("/")[0] == SNAPSHOTS_NAME.decode():
        raise InvalidArgument("what lies in a snapshot is named by 'snapshot_id' and the path in it")
    if is_same and not request.snapshot_id and _is_within(target, source):
        raise InvalidArgument(f"{target or '.'!r} lies within {source or '.'!r}; it would be copied into itself")
    if is_same and not request.snapshot_id and _is_within(source, target):
        raise InvalidArgument(f"{source or '.'!r} lies within {target or '.'!r}, which would be written over")
    return attrs.evolve(request, source_path=source, target_path=target)


def _is_text(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _is_within(path: str, above: str) -> bool:
    return not above or path == above or path.startswith(above + "/")


def describe(request: CopyRequest) -> dict[str, Any]:
    """Return a request as JSON has it."""
    found: dict[str, Any] = cattrs.unstructure(attrs.evolve(request, source_options={}))
    return {**found, "source_options": dict(request.source_options)}


def name_source(request: CopyRequest) -> str:
    """Return what is copied, for people."""
    if request.source_name:
        return request.source_name
    if request.snapshot_id:
        return f"{request.source_path or '.'} of snapshot {request.snapshot_id}"
    if not request.source_text:
        return request.source_path or "."
    return f"{request.source_text.rstrip('/')}/{request.source_path}".rstrip("/")
