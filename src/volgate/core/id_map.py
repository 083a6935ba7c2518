"""Whose files a mount shows, and whose name a new file gets: ``uid=, gid=, umask=, squash=, uidmap=, gidmap=``.

The kernel checks permissions against what is shown. So ``squash`` decides whose the new files are and takes chown
away; it does not take root's power to read and write: that is the kernel's, on every mount (capabilities(7)).
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from volgate.dto import AttributeChanges, FileAttributes

NOBODY: Final = 65534
"""The id of what has none here (overflowuid, user_namespaces(7))."""
Squash = Literal["none", "root", "all"]


@attrs.frozen
class IdRange:
    """Ids ``inside`` up to ``inside + count`` of the mount are ``outside`` and so on in the volume (newuidmap(1))."""

    inside: int
    outside: int
    count: int


def parse_ranges(text: str) -> tuple[IdRange, ...]:
    """Return the ranges of ``INSIDE:OUTSIDE:COUNT``, several joined by ``+``.

    Raises:
        ValueError: it is not that.
    """
    ranges = []
    for part in text.split("+"):
        numbers = part.split(":")
        if len(numbers) != 3 or not all(number.isdigit() for number in numbers) or int(numbers[2]) == 0:
            raise ValueError(f"'{part}' is no map such as 0:100000:65536 (in the mount : in the volume : how many)")
        ranges.append(IdRange(*map(int, numbers)))
    return tuple(ranges)


@attrs.frozen
class IdMap:
    """Translates owners and modes between the mount and the volume.

    Attributes:
        uid: every file is shown as this user's; None = as stored. gid: likewise.
        umask: permission bits that are never shown.
        squash: whose new files become ``uid:gid``, or nobody's: root's, everyone's, none.
        uids, gids: ranges of ids that are translated; ids outside are nobody's, and may not make files.
    """

    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    squash: Squash = "none"
    uids: tuple[IdRange, ...] = ()
    gids: tuple[IdRange, ...] = ()

    def show(self, attributes: FileAttributes) -> FileAttributes:
        """Return attributes as the mount shows them."""
        return attrs.evolve(
            attributes,
            uid=self.uid if self.uid is not None else _shown(attributes.uid, self.uids),
            gid=self.gid if self.gid is not None else _shown(attributes.gid, self.gids),
            mode=attributes.mode & ~self.umask,
        )

    def store_owner(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Return the owner that a caller's new file gets in the volume; None for a caller whom the maps leave out."""
        if self.squash == "all" or (self.squash == "root" and uid == 0):
            return (NOBODY if self.uid is None else self.uid, NOBODY if self.gid is None else self.gid)
        stored = _stored(uid, self.uids), _stored(gid, self.gids)
        return None if stored[0] is None or stored[1] is None else (stored[0], stored[1])

    def store_changes(self, changes: AttributeChanges, caller: int) -> AttributeChanges | None:
        """Return a setattr's changes in the volume's terms; None where the caller may not change the owner so."""
        if changes.uid is None and changes.gid is None:
            return changes
        if self.squash == "all" or (self.squash == "root" and caller == 0):
            return None
        uid, gid = changes.uid, changes.gid
        if self.uid is not None:
            if uid not in (None, self.uid):
                return None
            uid = None
        if self.gid is not None:
            if gid not in (None, self.gid):
                return None
            gid = None
        stored_uid = None if uid is None else _stored(uid, self.uids)
        stored_gid = None if gid is None else _stored(gid, self.gids)
        if (uid is None) != (stored_uid is None) or (gid is None) != (stored_gid is None):
            return None
        return attrs.evolve(changes, uid=stored_uid, gid=stored_gid)


def _shown(stored: int, ranges: tuple[IdRange, ...]) -> int:
    if not ranges:
        return stored
    for found in ranges:
        if found.outside <= stored < found.outside + found.count:
            return found.inside + stored - found.outside
    return NOBODY


def _stored(shown: int, ranges: tuple[IdRange, ...]) -> int | None:
    if not ranges:
        return shown
    for found in ranges:
        if found.inside <= shown < found.inside + found.count:
            return found.outside + shown - found.inside
    return None
