"""What has to go when room is needed: the least recently used first."""

from __future__ import annotations

from collections import OrderedDict


class UseOrder:
    """Names with the bytes they take, in the order of their last use. Pure; the caller keeps threads apart.

    Attributes:
        total_bytes: of all names together.
    """

    def __init__(self) -> None:
        self._bytes: OrderedDict[str, int] = OrderedDict()
        self.total_bytes = 0

    def __contains__(self, name: str) -> bool:
        return name in self._bytes

    def weigh(self, name: str, bytes_: int) -> None:
        """Say what a name takes. A new one is the last used; the place of the others stays."""
        self.total_bytes += bytes_ - self._bytes.get(name, 0)
        self._bytes[name] = bytes_

    def touch(self, name: str) -> None:
        """Make a name the last used one; nothing happens where it is unknown."""
        if name in self._bytes:
            self._bytes.move_to_end(name)

    def remove(self, name: str) -> int:
        """Forget a name and return what it took, 0 where it is unknown."""
        bytes_ = self._bytes.pop(name, 0)
        self.total_bytes -= bytes_
        return bytes_

    def plan_eviction(self, excess_bytes: int) -> list[str]:
        """Return the fewest of the least recently used names that give so many bytes, all names where they do not."""
        victims: list[str] = []
        for name, bytes_ in self._bytes.items():
            if excess_bytes <= 0:
                break
            victims.append(name)
            excess_bytes -= bytes_
        return victims
