"""From what names a volume's data (a directory, a URL, a volume of the catalog) to all that its driver is told."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from volgate.drivers.registry import Source, is_bucket, split_source
from volgate.errors import InvalidArgument
from volgate.volume.catalog import Catalog, CatalogEntry
from volgate.volume.mount_options import parse_options

CONFIGURED: Final = ("endpoint_url", "region", "addressing", "credentials_file", "ca_bundle", "proxy")
"""Options of buckets that the configuration gives where nothing else does, in its section [s3]."""
_OF_OTHERS: Final = frozenset({"mount_path", "verify_tls", "conf", "client", "keyring", "filesystem", "objectives"})
_PLACE_BYTES: Final = 16


def resolve(text: str, catalog: Catalog) -> tuple[Source, CatalogEntry | None]:
    """Return where the data lies, absolute; and the catalog's entry where ``text`` is a name.

    Raises:
        NotFound: a name that the catalog does not know. InvalidArgument: it looks like a URL and is none.
    """
    entry = None
    source = split_source(text)
    if source is None:
        entry = catalog.find(text)
        source = split_source(entry.source)
        assert source is not None
    if source.backend_type == "posix":
        source = Source("posix", os.path.abspath(source.text))
    return source, entry


def with_options(
    source: Source, options: Mapping[str, str], configured: Mapping[str, str | None], cache_directory: Path
) -> Source:
    """Return a source with what its storage is told: options over configuration, and where its cache lies.

    Args:
        configured: of the configuration, by the names of ``CONFIGURED``.
        cache_directory: of all caches of this user.

    Raises:
        InvalidArgument: options for a directory, or a bucket's of other storage.
    """
    if "://" not in source.text:
        if options:
            raise InvalidArgument(f"mount option {min(options)} is for buckets; {source.text} is a directory")
        return source
    if not is_bucket(source):  # its driver says which options it takes
        return Source(source.backend_type, source.text, dict(options))
    if others := sorted(_OF_OTHERS & set(options)):
        raise InvalidArgument(f"mount option {others[0]} is not for buckets, and {source.text} is one")
    told = {**{name: value for name, value in configured.items() if value}, **options}
    place = f"{told.get('endpoint_url') or os.environ.get('AWS_ENDPOINT_URL', '')} {source.text.rstrip('/')}"
    digest = hashlib.blake2b(place.encode(), digest_size=_PLACE_BYTES).hexdigest()
    name = re.sub(r"[^a-z0-9]+", "-", source.text.split("://", 1)[1].lower()).strip("-")[:40]
    told.setdefault("cache_dir", str(cache_directory / f"{name}-{digest[:8]}"))
    return Source(source.backend_type, source.text, {**told, "place": digest})


class Locator:
    """Finds the data of volumes, with all that their storage is told.

    Args:
        catalog: of this user. configured, cache_directory: as ``with_options`` takes them.
    """

    def __init__(self, catalog: Catalog, configured: Mapping[str, str | None], cache_directory: Path) -> None:
        self._catalog = catalog
        self._configured = configured
        self._cache_directory = cache_directory

    def locate(self, text: str, options: str = "") -> Source:
        """Return where data lies; ``options``: as after ``-o``, over those that the catalog has.

        Raises:
            NotFound: a name that the catalog does not know. InvalidArgument: the options are none, or not for it.
        """
        source, entry = resolve(text, self._catalog)
        known = parse_options(entry.options).get("storage", {}) if entry is not None else {}
        told = {**known, **parse_options(options).get("storage", {})}
        return with_options(source, told, self._configured, self._cache_directory)
