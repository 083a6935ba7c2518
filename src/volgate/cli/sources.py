"""What a SOURCE argument means: a directory, a URL, or a volume that the catalog knows by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from volgate import paths

if TYPE_CHECKING:
    from volgate.drivers.registry import Source
    from volgate.volume.catalog import Catalog, CatalogEntry


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
