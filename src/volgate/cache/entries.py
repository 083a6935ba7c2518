"""What changed, by key: a mapping that also knows which of its keys lie below a directory's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volgate.cache.overlay import Entry


class Entries(dict[str, "Entry"]):
    """Entries by key; keys are set by ``[]`` and removed by ``del`` only. Both cost the depth of the key at most."""

    def __init__(self) -> None:
        super().__init__()
        self._below: dict[str, set[str]] = {}

    def __setitem__(self, key: str, entry: Entry) -> None:
        super().__setitem__(key, entry)
        while key:
            above = _directory_of(key)
            siblings = self._below.setdefault(above, set())
            if key in siblings:
                return
            siblings.add(key)
            key = above

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        while key and key not in self and key not in self._below:
            above = _directory_of(key)
            siblings = self._below[above]
            siblings.discard(key)
            if not siblings:
                del self._below[above]
            key = above

    def below(self, directory: str) -> Iterator[Entry]:
        """Yield the entries whose keys begin with a directory's, which ends in "/", but for its own."""
        for key in self._below.get(directory, ()):
            yield from self.below(key)
            if key in self:
                yield self[key]


def _directory_of(key: str) -> str:
    """Return the key of the directory that a key lies in; "" for the root."""
    return key[: key.rfind("/", 0, -1) + 1]
