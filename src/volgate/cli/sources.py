"""What a SOURCE argument means: a directory, a URL, or a volume that the catalog knows by name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

import click

from volgate import paths
from volgate.errors import InvalidArgument

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.drivers.base import BackendDirectory, BaseStorageBackend
    from volgate.drivers.registry import Source
    from volgate.volume.catalog import Catalog, CatalogEntry
    from volgate.volume.identity import VolumeIdentity
    from volgate.volume.sources import Locator


def catalog() -> Catalog:
    """Return this user's catalog."""
    from volgate.volume.catalog import Catalog

    return Catalog(paths.catalog_path())


def to_mount(entry: CatalogEntry) -> str:
    """Return the command that mounts a volume of the catalog."""
    return f"volgate mount {entry.volume_id}" + ("" if entry.mount_point else " MOUNTPOINT")


def resolve(text: str) -> tuple[Source, CatalogEntry | None]:
    """Return where the data lies, absolute; and the catalog's entry where SOURCE is a name.

    Raises:
        NotFound: a name that the catalog does not know.
    """
    from volgate.volume import sources

    return sources.resolve(text, catalog())


def with_options(source: Source, options: Mapping[str, str], configuration: Configuration) -> Source:
    """Return a source with what its storage is told: options over configuration, and where its cache lies.

    Raises:
        click.UsageError: options for a directory, or a bucket's of other storage.
    """
    from volgate.volume import sources

    try:
        return sources.with_options(source, options, storage_settings(configuration), paths.cache_directory())
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from error


def storage_settings(configuration: Configuration) -> dict[str, str | None]:
    """Return what the configuration tells storage, as ``volume.sources`` takes it."""
    from volgate.volume.sources import CONFIGURED

    return {name: configuration[f"s3.{name}"] for name in CONFIGURED}


def locator() -> Locator:
    """Return what finds the data of this user's volumes."""
    from volgate.config.loading import load
    from volgate.volume.sources import Locator

    return Locator(catalog(), storage_settings(load(paths.config_directory(), os.environ)), paths.cache_directory())


def resolve_with_configuration(text: str, options: str = "") -> Source:
    """Return where the data of a volume lies, with all that its storage is told.

    Args:
        options: as after ``-o``; those that the catalog has come first.
    """
    return locator().locate(text, options)


@contextlib.asynccontextmanager
async def opened(
    text: str, *, owned: bool = False
) -> AsyncIterator[tuple[BaseStorageBackend, BackendDirectory, VolumeIdentity]]:
    """Open a volume that is not mounted, for reading, or ``owned`` for changing it as well.

    Raises:
        NotFound: there is no volume. Busy: another owns it.
    """
    from volgate.volume import unmounted

    async with unmounted.opened(resolve_with_configuration(text), owned=owned, place=text) as found:
        yield found
