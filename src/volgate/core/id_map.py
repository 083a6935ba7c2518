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
            uid=_show(attributes.uid, self.uid, self.uids),
            gid=_show(attributes.gid, self.gid, self.gids),
            mode=attributes.mode & ~self.umask,
        )

    def store_owner(self, uid: int, gid: int) -> tuple[int, int] | None:
        """Return the owner that a caller's new file gets in the volume; None for a caller whom the maps leave out."""
        if self._is_squashed(uid):
            return (NOBODY if self.uid is None else self.uid, NOBODY if self.gid is None else self.gid)
        stored_uid, stored_gid = _translate(uid, self.uids), _translate(gid, self.gids)
        return None if stored_uid is None or stored_gid is None else (stored_uid, stored_gid)

    def store_changes(self, changes: AttributeChanges, caller: int) -> AttributeChanges | None:
        """Return a setattr's changes in the volume's terms; None where the caller may not change the owner so."""
        if changes.uid is None and changes.gid is None:
            return changes
        if self._is_squashed(caller):
            return None
        try:
            uid = _store_change(changes.uid, self.uid, self.uids)
            gid = _store_change(changes.gid, self.gid, self.gids)
        except LookupError:
            return None
        return attrs.evolve(changes, uid=uid, gid=gid)

    def _is_squashed(self, caller: int) -> bool:
        return self.squash == "all" or (self.squash == "root" and caller == 0)


def _show(stored: int, always: int | None, ranges: tuple[IdRange, ...]) -> int:
    if always is not None:
        return always
    shown = _translate(stored, ranges, outward=False)
    return NOBODY if shown is None else shown


def _store_change(wanted: int | None, always: int | None, ranges: tuple[IdRange, ...]) -> int | None:
    """Return what a chown to ``wanted`` stores, None where that changes nothing. Raises LookupError if it may not."""
    if wanted is None or wanted == always:
        return None
    stored = None if always is not None else _translate(wanted, ranges)
    if stored is None:
        raise LookupError(wanted)
    return stored


def _translate(number: int, ranges: tuple[IdRange, ...], *, outward: bool = True) -> int | None:
    """Return an id of the mount as the volume's, or the other way round; None for one outside all ranges."""
    if not ranges:
        return number
    for found in ranges:
        start, target = (found.inside, found.outside) if outward else (found.outside, found.inside)
        if start <= number < start + found.count:
            return target + number - start
    return None
