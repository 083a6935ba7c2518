"""A file's attributes in its object's metadata: reads what s3fs, geesefs, rclone and gcsfuse write, writes s3fs's.

Pure. One object is one file, so every other tool that reads the bucket must find in it what it understands. Keys are in
lower case, values printable ASCII; S3 counts 2 KiB for both together (User Guide, "Working with object metadata").

| key | s3fs 1.90 | geesefs 0.43 | rclone 1.60, ``-M`` | gcsfuse 3 |
|---|---|---|---|---|
| mode | decimal, with type unless a directory | decimal, with type | octal, with type | |
| uid, gid | decimal | decimal | decimal | |
| rdev | | decimal | hexadecimal | |
| mtime | seconds.nanoseconds | seconds | seconds, a fraction | gcsfuse_mtime, RFC 3339 |
| atime, ctime | as mtime | | atime: RFC 3339 | |
| xattr | quoted JSON, values in base64 | a key each | | |
| symlink's target | the body | --symlink-target | the body of NAME.rclonelink | the body, or gcsfuse_symlink_target |
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import stat
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

import attrs

MAX_METADATA_BYTES: Final = 2048
_TYPES: Final = frozenset(
    {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
)
_SECONDS: Final = re.compile(r"(-?)(\d{1,11})(?:\.(\d*))?")
_FRACTION: Final = re.compile(r"\.(\d+)")
_TARGETS: Final = ("--symlink-target", "gcsfuse_symlink_target")
_MAX_ID: Final = 2**32 - 2


@attrs.frozen
class StoredAttributes:
    """What an object's metadata says of its file; None = nothing, or nothing that makes sense.

    Attributes:
        mode: type and permission bits.
        uid: owner. gid: group. rdev: device number.
        mtime_ns: UNIX nanoseconds, as the two that follow.
        symlink_target: where metadata has it; a symlink without one has its target in the body.
        xattrs: names in full (``user.x``).
    """

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    rdev: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    symlink_target: bytes | None = None
    xattrs: Mapping[bytes, bytes] = attrs.field(factory=dict)


def decode(metadata: Mapping[str, str], file_type: int = stat.S_IFREG) -> StoredAttributes:
    """Return what an object's metadata says, whoever wrote it. Total: nonsense counts as nothing said.

    Args:
        file_type: what it is where only permissions are written, as s3fs does for directories.
    """
    target = next((metadata[key] for key in _TARGETS if key in metadata), None)
    mode = _decode_mode(metadata.get("mode", ""), file_type)
    if target is not None or metadata.get("goog-reserved-file-is-symlink") == "true":
        mode = stat.S_IFLNK | 0o777
    return StoredAttributes(
        mode=mode,
        uid=_decode_id(metadata.get("uid", "")),
        gid=_decode_id(metadata.get("gid", "")),
        rdev=_decode_id(metadata.get("rdev", "")),
        atime_ns=_decode_time(metadata.get("atime", "")),
        mtime_ns=_decode_time(
            metadata.get("mtime") or metadata.get("gcsfuse_mtime") or metadata.get("goog-reserved-file-mtime", "")
        ),
        ctime_ns=_decode_time(metadata.get("ctime", "")),
        symlink_target=unquote_to_bytes(target) if target is not None else None,
        xattrs=_decode_xattrs(metadata.get("xattr", "")),
    )


def encode(attributes: StoredAttributes) -> dict[str, str]:
    """Return the metadata that s3fs would write; a symlink's permissions are 0777, its target belongs into the body.

    The result may be longer than ``MAX_METADATA_BYTES``: then the caller refuses what made it so (ENOSPC).
    """
    found = {
        "mode": attributes.mode,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "rdev": attributes.rdev or None,
    }
    times = {"atime": attributes.atime_ns, "mtime": attributes.mtime_ns, "ctime": attributes.ctime_ns}
    return {
        **{key: str(value) for key, value in found.items() if value is not None},
        **{key: _encode_time(value) for key, value in times.items() if value is not None},
        **({"xattr": _encode_xattrs(attributes.xattrs)} if attributes.xattrs else {}),
    }


def measure(metadata: Mapping[str, str]) -> int:
    """Return how many of ``MAX_METADATA_BYTES`` metadata takes."""
    return sum(len(key) + len(value) for key, value in metadata.items())


def _decode_mode(text: str, file_type: int) -> int | None:
    """Tell decimal from octal by the type bits.

    No regular file's mode makes sense both ways. Where another's does, it is decimal; but a symlink's permissions are
    0777, and what would be another symlink is a directory of rclone's.
    """
    if not text.isascii() or not text.isdigit():
        return None
    decimal = int(text)
    octal = int(text, 8) if not set(text) & set("89") else None
    sensible = [mode for mode in (decimal, octal) if mode is not None and _has_type(mode)]
    if sensible:
        return sensible[-1] if stat.S_ISLNK(sensible[0]) and stat.S_IMODE(sensible[0]) != 0o777 else sensible[0]
    permissions = octal if text.startswith("0") else decimal
    return file_type | permissions if permissions is not None and permissions <= 0o7777 else None


def _has_type(mode: int) -> bool:
    return mode <= 0o177777 and stat.S_IFMT(mode) in _TYPES


def _decode_id(text: str) -> int | None:
    try:
        number = int(text, 16) if text.startswith("0x") else int(text)
    except ValueError:
        return None
    return number if 0 <= number <= _MAX_ID else None


def _decode_time(text: str) -> int | None:
    found = _SECONDS.fullmatch(text)
    if found is None:
        return _decode_rfc3339(text)
    sign, seconds, fraction = found.groups()
    ns = int(seconds) * 10**9 + int(((fraction or "") + "0" * 9)[:9])
    return -ns if sign else ns


def _decode_rfc3339(text: str) -> int | None:
    fraction = _FRACTION.search(text)
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    ns = int(fraction.group(1)[:9].ljust(9, "0")) if fraction else 0
    return int(moment.timestamp()) * 10**9 + ns


def _encode_time(ns: int) -> str:
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // 10**9}.{abs(ns) % 10**9:09}"


def _decode_xattrs(text: str) -> dict[bytes, bytes]:
    try:
        document: Any = json.loads(unquote_to_bytes(text).decode("utf-8", "surrogateescape"))
        return {
            name.encode("utf-8", "surrogateescape"): base64.b64decode(value, validate=True)
            for name, value in document.items()
        }
    except (ValueError, AttributeError, TypeError, binascii.Error, RecursionError):
        return {}


def _encode_xattrs(xattrs: Mapping[bytes, bytes]) -> str:
    pairs = {
        name.decode("utf-8", "surrogateescape"): base64.b64encode(value).decode()
        for name, value in sorted(xattrs.items())
    }
    text = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))
    return quote(text.encode("utf-8", "surrogateescape"), safe="")
