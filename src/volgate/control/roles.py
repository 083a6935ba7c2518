"""Who may do what: pure decisions.

reader: see a volume. owner: mount and unmount it, take, delete and restore its snapshots. admin: its limits; and of all
volumes also make, change and delete them, since that names any directory of the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

import attrs

from volgate.dto.validation import VOLUME_ID

_ALL = "*"


class Role(IntEnum):
    """A higher one may all that a lower one may."""

    READER = 1
    OWNER = 2
    ADMIN = 3


@attrs.frozen
class Grant:
    """A role, for one volume; ``volume_id``: None = for all, also those there will be."""

    role: Role
    volume_id: str | None

    def __str__(self) -> str:
        return f"{self.role.name.lower()}:{self.volume_id or _ALL}"


@attrs.frozen
class Principal:
    """Who asks.

    Attributes:
        name: ``uid:N``, ``token:NAME`` or ``jwt:SUBJECT``; in the log, and what separates idempotency keys.
        grants: what he may; nothing else.
    """

    name: str
    grants: tuple[Grant, ...]

    def may(self, role: Role, volume_id: str | None) -> bool:
        """Return whether he has a role for a volume; ``volume_id``: None = for all of them."""
        return any(
            grant.role >= role and (grant.volume_id is None or grant.volume_id == volume_id) for grant in self.grants
        )


ADMIN_OF_ALL = Grant(Role.ADMIN, None)


def parse_grant(text: str) -> Grant:
    """Return the grant of ``ROLE:VOLUME``, or ``ROLE:*`` for all volumes.

    Raises:
        ValueError: it is none; the message says what one looks like.
    """
    role, colon, volume_id = text.strip().partition(":")
    known = {member.name.lower(): member for member in Role}
    if not colon or role not in known or (volume_id != _ALL and not VOLUME_ID.fullmatch(volume_id)):
        raise ValueError(f"'{text}' is no grant such as reader:projects, owner:projects or admin:*")
    return Grant(known[role], None if volume_id == _ALL else volume_id)


def parse_user_grants(lines: Iterable[str]) -> dict[str, tuple[Grant, ...]]:
    """Return the grants of users of ``USER=GRANT[,GRANT]`` lines; a user that comes again has all of them.

    Raises:
        ValueError: a line is none.
    """
    found: dict[str, tuple[Grant, ...]] = {}
    for line in lines:
        user, equals, grants = line.strip().partition("=")
        if not equals or not user.strip():
            raise ValueError(f"'{line}' is not USER=ROLE:VOLUME[,ROLE:VOLUME], as ann=owner:projects")
        user = user.strip()
        found[user] = (*found.get(user, ()), *(parse_grant(text) for text in grants.split(",")))
    return found
