"""Mount options for people: what is wrong with them is a wrong invocation."""

from __future__ import annotations

from typing import Any

import click

from volgate.errors import InvalidArgument
from volgate.volume import mount_options
from volgate.volume.mount_options import HELP, take_id_map

__all__ = ["HELP", "parse_options", "take_id_map"]


def parse_options(text: str) -> dict[str, Any]:
    """See ``volume.mount_options``. Raises click.UsageError: unknown, or a value that is none; names the option."""
    try:
        return mount_options.parse_options(text)
    except InvalidArgument as error:
        raise click.UsageError(str(error)) from error
