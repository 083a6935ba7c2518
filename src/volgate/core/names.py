"""Which names a volume keeps for the gateway, and which keys of a bucket no name can show."""

from __future__ import annotations

from typing import Final

GATEWAY_NAME: Final = b".volgate"
"""At the root of a volume: the gateway's own files. Never shown, never charged."""

IDENTITY_NAME: Final = b"identity.json"
"""There, the file that makes a directory a volume."""

SNAPSHOTS_NAME: Final = b".snapshots"
"""At the root of a volume: its snapshots, read-only. Reached by its name, in no listing."""

RESERVED_ROOT_NAMES: Final[frozenset[bytes]] = frozenset({GATEWAY_NAME, SNAPSHOTS_NAME})
"""Names at the root that users cannot make, and that no listing shows."""

DRAFT_PREFIX: Final = b".volgate-draft-"
"""Begins the names of what is not whole yet: a copy under way, a file that is restored. Hidden in every directory."""

RCLONE_LINK: Final = ".rclonelink"
"""rclone stores the link NAME as the object NAME.rclonelink."""


def name_of(text: str) -> str:
    """Return the name that an object is shown by; ``text`` is the last part of its key."""
    return text.removesuffix(RCLONE_LINK) or text


def why_not_shown(text: str) -> str:
    """Return why a name that an object's key asks for is no file name, "" where it is one."""
    if not text:
        return "an empty name"
    if text in (".", ".."):
        return "the name . or .."
    if "\0" in text:
        return "a NUL in its name"
    if len(text.encode()) > 255:
        return "a name of more than 255 bytes"
    return ""
