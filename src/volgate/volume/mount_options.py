"""Mount options as after ``-o``, in fstab, the catalog and the API: comma-separated, unknown ones refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from volgate.core.addresses import parse_address
from volgate.core.id_map import IdMap, parse_ranges
from volgate.core.sizes import parse_count, parse_seconds, parse_size
from volgate.errors import InvalidArgument

_IGNORED: Final = frozenset(
    {
        "defaults", "_netdev", "nofail", "auto", "noauto", "user", "users", "nouser", "owner", "group",
        "nosuid", "nodev", "dev", "suid", "exec", "async", "relatime", "noatime", "nodiratime", "default_permissions",
    }
)  # fmt: skip
"""Options of mount(8) that say nothing to a file system, or what holds here anyway."""
_STORAGE: Final = frozenset(
    {
        "endpoint_url", "region", "addressing", "credentials_file", "anonymous", "ca_bundle", "cache_dir", "cache_size",
        "cache_free", "staging_size", "upload_age", "count_every", "fsync", "close", "take_over", "storage_class",
        "encryption", "kms_key", "requester_pays", "proxy", "upload_limit", "download_limit",
        "conf", "client", "keyring", "filesystem", "mount_path", "verify_tls",
        "objectives",
    }
)  # fmt: skip
"""Options of buckets with their caches, and of other storage, passed on as they are."""
_SWITCHES: Final[dict[str, dict[str, Any]]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "nonempty": {"nonempty": True},
    "allow_other": {"allow_other": True},
    "private": {"allow_other": False},
}
HELP: Final = (
    "Mount options, comma-separated: ro, nonempty, allow_other, private, quota=SIZE, inodes=N, attr_timeout=TIME, "
    "uid=N, gid=N, umask=OCTAL, squash=none|root|all, uidmap=INSIDE:OUTSIDE:COUNT[+...], gidmap=..., "
    "metrics=HOST:PORT, worker=USER. For buckets: endpoint_url=, region=, addressing=, credentials_file=, anonymous, "
    "ca_bundle=, requester_pays, proxy=URL, upload_limit=SIZE, download_limit=SIZE (a second), storage_class=, "
    "encryption=AES256|aws:kms, kms_key=, cache_dir=, cache_size=, cache_free=, staging_size=, upload_age=TIME, "
    "count_every=TIME, fsync=bucket|journal, close=journal|bucket, take_over. "
    "For ceph://: conf=, client=, keyring=, filesystem=. "
    "For hammerspace://: mount_path=, credentials_file=, ca_bundle=, verify_tls=yes|no, "
    "objectives=NAME[+...]."
)


def _id(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32 - 1:
        raise ValueError(f"'{text}' is no numeric id")
    return int(text)


def _umask(text: str) -> int:
    if not text or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        raise ValueError(f"'{text}' is no umask such as 022")
    return int(text, 8)


def _squash(text: str) -> str:
    if text not in ("none", "root", "all"):
        raise ValueError(f"'{text}' is none of none, root, all")
    return text


_VALUES: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "quota": ("quota_bytes", parse_size),
    "inodes": ("quota_inodes", parse_count),
    "attr_timeout": ("attr_timeout_s", parse_seconds),
    "uid": ("uid", _id),
    "gid": ("gid", _id),
    "umask": ("umask", _umask),
    "squash": ("squash", _squash),
    "uidmap": ("uids", parse_ranges),
    "gidmap": ("gids", parse_ranges),
    "metrics": ("metrics_address", parse_address),
    "worker": ("worker_user", str),
}
_ID_MAP: Final = ("uid", "gid", "umask", "squash", "uids", "gids")


def parse_options(text: str) -> dict[str, Any]:
    """Return what options ask for, by the names of ``MountSettings``; later ones win.

    Raises:
        InvalidArgument: unknown, or a value that is none; names the option.
    """
    wanted: dict[str, Any] = {}
    for option in text.split(","):
        name, equals, value = option.strip().partition("=")
        if not name or name in _IGNORED or name.startswith("x-"):
            continue
        if name in _STORAGE:
            wanted.setdefault("storage", {})[name] = value
        elif name in _SWITCHES and not equals:
            wanted.update(_SWITCHES[name])
        elif name in _VALUES and equals:
            key, parse = _VALUES[name]
            try:
                wanted[key] = parse(value)
            except ValueError as error:
                raise InvalidArgument(f"mount option {name}: {error}") from error
        else:
            known = name in _SWITCHES or name in _VALUES
            needs = "takes no value" if name in _SWITCHES else f"needs a value: {name}=..."
            raise InvalidArgument(f"mount option '{option}': {needs}" if known else f"unknown mount option '{option}'")
    return wanted


def take_id_map(wanted: dict[str, Any]) -> IdMap | None:
    """Take the options of owners out of ``wanted``; None where there are none."""
    found = {key: wanted.pop(key) for key in _ID_MAP if key in wanted}
    return IdMap(**found) if found else None
