"""What a SOURCE argument means: a directory, a URL, or a volume that the catalog knows by name."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from volgate import paths
from volgate.errors import NotFound

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.drivers.base import BackendDirectory, BaseStorageBackend
    from volgate.drivers.registry import Source
    from volgate.volume.catalog import Catalog, CatalogEntry
    from volgate.volume.identity import VolumeIdentity

_CONFIGURED: Final = ("endpoint_url", "region", "addressing", "credentials_file", "ca_bundle", "proxy")
_OF_OTHERS: Final = frozenset({"mount_path", "verify_tls", "conf", "client", "keyring", "filesystem", "objectives"})
_PLACE_BYTES: Final = 16


def catalog() -> Catalog:
    """Return this user's catalog."""
    from volgate.volume.catalog import Catalog

    return Catalog(paths.catalog_path())


def resolve(text: str) -> tuple[Source, CatalogEntry | None]:
    """Return where the data lies, absolute; and the catalog's entry where SOURCE is a name.

    Raises:
        NotFound: a name that the catalog does not know.
    """
    from volgate.drivers.registry import Source, split_source

    entry = None
    source = split_source(text)
    if source is None:
        entry = catalog().find(text)
        source = split_source(entry.source)
        assert source is not None
    if source.backend_type == "posix":
        source = Source("posix", os.path.abspath(source.text))
    return source, entry


def with_options(source: Source, options: Mapping[str, str], configuration: Configuration) -> Source:
    """Return a source with what its storage is told: options over configuration, and where its cache lies.

    Raises:
        click.UsageError: options for a directory, or a bucket's of other storage.
    """
    from volgate.drivers.registry import Source, is_bucket

    if "://" not in source.text:
        if options:
            raise click.UsageError(f"mount option {min(options)} is for buckets; {source.text} is a directory")
        return source
    if not is_bucket(source):  # its driver says which options it takes
        return Source(source.backend_type, source.text, dict(options))
    if others := sorted(_OF_OTHERS & set(options)):
        raise click.UsageError(f"mount option {others[0]} is not for buckets, and {source.text} is one")
    configured = {name: value for name in _CONFIGURED if (value := configuration[f"s3.{name}"])}
    told = {**configured, **options}
    place = f"{told.get('endpoint_url') or os.environ.get('AWS_ENDPOINT_URL', '')} {source.text.rstrip('/')}"
    digest = hashlib.blake2b(place.encode(), digest_size=_PLACE_BYTES).hexdigest()
    name = re.sub(r"[^a-z0-9]+", "-", source.text.split("://", 1)[1].lower()).strip("-")[:40]
    told.setdefault("cache_dir", str(paths.cache_directory() / f"{name}-{digest[:8]}"))
    return Source(source.backend_type, source.text, {**told, "place": digest})


def resolve_with_configuration(text: str, options: str = "") -> Source:
    """Return where the data of a volume lies, with all that its storage is told.

    Args:
        options: as after ``-o``; those that the catalog has come first.
    """
    from volgate.cli.mount_options import parse_options
    from volgate.config.loading import load

    source, entry = resolve(text)
    known = parse_options(entry.options).get("storage", {}) if entry is not None else {}
    told = {**known, **parse_options(options).get("storage", {})}
    return with_options(source, told, load(paths.config_directory(), os.environ))


@contextlib.asynccontextmanager
async def opened(
    text: str, *, owned: bool = False
) -> AsyncIterator[tuple[BaseStorageBackend, BackendDirectory, VolumeIdentity]]:
    """Open a volume that is not mounted, for reading, or ``owned`` for changing it as well.

    Raises:
        NotFound: there is no volume. Busy: another owns it.
    """
    from volgate.dto import VolumeOperationContext
    from volgate.volume.identity import load_identity
    from volgate.volume.ownership import acquire_ownership
    from volgate.volume.storage import make_backend

    source = resolve_with_configuration(text)
    backend = make_backend(source)
    context = VolumeOperationContext("volume", Path("/"), source.backend_type, "cli", read_only=not owned)
    try:
        root = await backend.open_volume(context)
        identity = await load_identity(backend)
        if identity is None:
            raise NotFound(f"{text} is no volume of volgate's yet; mount it once")
        if owned:
            await acquire_ownership(backend, identity.volume_id, None)
        try:
            yield backend, root, identity
        finally:
            if owned:
                await backend.release_ownership()
    finally:
        await backend.close()
