"""The page for people: its files, as they are served. Whoever connects gets them: they hold no data and no secret."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final

import attrs

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_INDEX: Final = "index.html"
_FOLDER: Final = "/page/"


@attrs.frozen
class PageFile:
    """One file. Attributes: content, media_type; etag: of RFC 9110, strong."""

    content: bytes
    media_type: str
    etag: str


def _load() -> dict[str, PageFile]:
    found: dict[str, PageFile] = {}
    for file in files(__name__).iterdir():
        name = file.name
        media_type = _TYPES.get(name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:32]
            found["/" if name == _INDEX else _FOLDER + name] = PageFile(content, media_type, f'"{digest}"')
    return found


FILES: Final = _load()
"""By the path at which each is served."""
