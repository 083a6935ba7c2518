"""Manifests on the local disk: drafts, and copies of what the storage has, each known by its checksum."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
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
        self._remove_all("*.new")

    def draft(self, name: str) -> Path:
        """Return the path of a new file. Raises NoSpace and the like."""
        path = self._directory / f"{name}.new"
        with _converted():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        return path

    async def keep(self, name: str, draft: Path, fingerprint: Fingerprint) -> Path:
        """Make a draft the copy; returns where that is."""
        kept = self._copy(name, fingerprint)
        with _converted():
            await trio.Path(draft).rename(kept)
        return kept

    async def fetch(
        self, name: str, fingerprint: Fingerprint, read_all: Callable[[], AsyncGenerator[bytes, None]]
    ) -> Path | None:
        """Return the copy; fetched where there is none. None: what the storage has is another content, twice.

        Args:
            read_all: reads what the storage has. Raises what that raises, and NoSpace and the like.
        """
        path = self._copy(name, fingerprint)
        with _converted():
            if await trio.Path(path).exists() and await measure(path) == fingerprint:
                return path
            for _ in range(2):
                draft = self.draft(name)
                async with await trio.open_file(draft, "wb") as file, contextlib.aclosing(read_all()) as chunks:
                    async for chunk in chunks:
                        await file.write(chunk)
                if await measure(draft) == fingerprint:
                    return await self.keep(name, draft, fingerprint)
                draft.unlink()
        return None

    def forget(self, name: str) -> None:
        """Remove the copies of a manifest."""
        self._remove_all(f"{name}-*.db")

    def _remove_all(self, pattern: str) -> None:
        with _converted():
            for path in self._directory.glob(pattern):
                path.unlink(missing_ok=True)

    def _copy(self, name: str, fingerprint: Fingerprint) -> Path:
        return self._directory / f"{name}-{fingerprint.sha256[:16]}.db"


async def measure(path: Path) -> Fingerprint:
    """Return what a file is. Raises InputOutput and the like."""
    with _converted():
        return await trio.to_thread.run_sync(_measure, path)


async def read_in_chunks(path: Path, sizes: Iterable[int]) -> AsyncGenerator[bytes, None]:
    """Yield a file in pieces of these sizes. Raises InputOutput and the like."""
    with _converted():
        file = await trio.open_file(path, "rb")
    async with file:
        for size in sizes:
            with _converted():
                chunk = await file.read(size)
            if not chunk:
                return
            yield chunk


@contextlib.contextmanager
def _converted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_oserror_at(error) from error


def _measure(path: Path) -> Fingerprint:
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return Fingerprint(file.tell(), checksum)
