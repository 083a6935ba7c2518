"""Manifests on the local disk: drafts, and copies of what the storage has, each known by its checksum."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs
import trio

from volgate.errors.errno_map import from_oserror_at


@attrs.frozen
class Fingerprint:
    """What a file has to be. Attributes: size: bytes. sha256: in hexadecimal."""

    size: int
    sha256: str


class LocalManifests:
    """The copies of one volume.

    Args:
        directory: made where it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def clear_drafts(self) -> None:
        """Remove what a crash left unfinished."""
        for left in self._directory.glob("*.new"):
            left.unlink(missing_ok=True)

    def draft(self, name: str) -> Path:
        """Return the path of a new file. Raises NoSpace and the like."""
        path = self._directory / f"{name}.new"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        except OSError as error:
            raise from_oserror_at(error) from error
        return path

    async def keep(self, name: str, draft: Path, fingerprint: Fingerprint) -> Path:
        """Make a draft the copy; returns where that is."""
        kept = self._copy(name, fingerprint)
        await trio.Path(draft).rename(kept)
        return kept

    async def find(self, name: str, fingerprint: Fingerprint) -> Path | None:
        """Return the copy that has the right content, None where there is none."""
        path = self._copy(name, fingerprint)
        if await trio.Path(path).exists() and await measure(path) == fingerprint:
            return path
        return None

    def forget(self, name: str) -> None:
        """Remove the copies of a manifest."""
        for path in self._directory.glob(f"{name}-*.db"):
            path.unlink(missing_ok=True)

    def _copy(self, name: str, fingerprint: Fingerprint) -> Path:
        return self._directory / f"{name}-{fingerprint.sha256[:16]}.db"


async def measure(path: Path) -> Fingerprint:
    """Return what a file is."""
    return await trio.to_thread.run_sync(_measure, path)


def _measure(path: Path) -> Fingerprint:
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return Fingerprint(file.tell(), checksum)
