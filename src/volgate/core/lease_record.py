"""The lease object of a volume in an object store: its JSON, and what a read of it shows.

Pure. Decided on in ``lease_rules``. Format 1::

    {"format": 1, "epoch": 7, "grant": "5f0c...", "renewals": 12, "holder": {"host": ...}, "backlog_bytes": 0,
     "backlog_files": 0, "released": false, "usage": null}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeVar

import attrs

from volgate.dto import Usage
from volgate.errors import InvalidArgument

_T = TypeVar("_T")
FORMAT: Final = 1
MAX_RECORD_BYTES: Final = 64 << 10
"""What is longer is no lease."""
_PRIVATE: Final = ("token", "cache")
"""What the holder says for other hosts' programs, not for people."""


def _freeze(holder: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(holder))


@attrs.frozen
class LeaseRecord:
    """Who owns the volume.

    Attributes:
        epoch: counts the owners.
        grant: names this ownership; no two have the same.
        renewals: counts what was written under this grant, so that no two writes are alike, nor their etags.
        holder: who it is, for people; ``token`` and ``cache`` in it are for ``lease_rules.Candidate``.
        backlog_bytes: acknowledged and not yet in the bucket; only the holder's host has them.
        backlog_files: how many files' changes that are.
        released: the holder has given it up. usage: how full the volume was then, None = unknown.
    """

    epoch: int
    grant: str
    renewals: int
    holder: Mapping[str, Any] = attrs.field(converter=_freeze)
    backlog_bytes: int = 0
    backlog_files: int = 0
    released: bool = False
    usage: Usage | None = None

    @property
    def has_backlog(self) -> bool:
        """Whether the holder's host has what the bucket has not."""
        return self.backlog_bytes > 0 or self.backlog_files > 0

    def to_bytes(self) -> bytes:
        """Return the object's body."""
        usage = None if self.usage is None else {"bytes": self.usage.bytes_, "inodes": self.usage.inodes}
        fields = attrs.asdict(self, recurse=False) | {"holder": dict(self.holder), "usage": usage}
        return json.dumps({"format": FORMAT, **fields}).encode() + b"\n"


@attrs.frozen
class Seen:
    """What a read of the lease object showed.

    Attributes:
        etag: of the object; "" = there is none.
        record: what stands in it; None = nothing that can be read.
        is_newer: a later version of volgate wrote it.
    """

    etag: str
    record: LeaseRecord | None = None
    is_newer: bool = False

    @classmethod
    def from_bytes(cls, etag: str, body: bytes) -> Seen:
        """Read an object's body, whatever stands in it."""
        try:
            fields = json.loads(body)
            if _count(fields["format"]) > FORMAT:
                return cls(etag, is_newer=True)
            usage = fields["usage"]
            record = LeaseRecord(
                _count(fields["epoch"]),
                _of_type(fields["grant"], str),
                _count(fields["renewals"]),
                _of_type(fields["holder"], dict),
                _count(fields["backlog_bytes"]),
                _count(fields["backlog_files"]),
                _of_type(fields["released"], bool),
                None if usage is None else Usage(_count(usage["bytes"]), _count(usage["inodes"])),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return cls(etag)
        return cls(etag, record)

    def describe(self, **facts: object) -> str:
        """Return one line of JSON: the holder as it calls itself, and what else is known."""
        if self.record is None:
            return json.dumps({"newer" if self.is_newer else "unreadable": True, **facts})
        told = {name: value for name, value in self.record.holder.items() if name not in _PRIVATE}
        backlog = {"backlog_bytes": self.record.backlog_bytes, "backlog_files": self.record.backlog_files}
        return json.dumps({**told, **backlog, **facts})


def parse_holder(line: bytes) -> dict[str, Any]:
    """Return a holder's line as a mapping. Raises InvalidArgument: it is no JSON object."""
    try:
        return _of_type(json.loads(line), dict)
    except (ValueError, TypeError) as error:
        raise InvalidArgument("the holder of a lease calls itself by a JSON object") from error


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _of_type(value: object, wanted: type[_T]) -> _T:
    if not isinstance(value, wanted):
        raise TypeError(f"{value!r} is no {wanted.__name__}")
    return value
