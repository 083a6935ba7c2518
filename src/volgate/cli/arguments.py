"""Argument types that several verbs share."""

from __future__ import annotations

import os
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from volgate.core.sizes import parse_count, parse_seconds, parse_size


class Size(click.ParamType[Any]):
    """Bytes: 10G, 10GiB, 10GB, none."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return ``(bytes or None,)``: a tuple, since click takes None for "not given"."""
        if isinstance(value, tuple):
            return value
        try:
            return (parse_size(value),)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Count(click.ParamType[Any]):
    """A number of inodes: 100000, 1M, none."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return ``(number or None,)``."""
        if isinstance(value, tuple):
            return value
        try:
            return (parse_count(value),)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(click.ParamType[Any]):
    """A duration: 60, 1.5s, 500ms, 10min, 2h."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return seconds."""
        try:
            return parse_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Target(click.ParamType[str]):
    """A mount point, a mounted volume's id, or a volume's directory; a shell completes it to what is mounted."""

    name = "TARGET"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the mount points and ids that begin so; directories where none does. Asks no daemon."""
        from volgate.mount_table import FILE_SYSTEM_TYPE, list_mounts

        ours = [entry for entry in list_mounts() if entry.file_system_type == FILE_SYSTEM_TYPE]
        words = [word for entry in ours for word in (entry.mount_point, entry.source.removeprefix("volgate:"))]
        found = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="dir")]


def _use_endpoint(_context: click.Context, _parameter: click.Parameter, url: str | None) -> None:
    if url is not None:
        os.environ["VOLGATE_S3__ENDPOINT_URL"] = url


ENDPOINT: Final = click.option(
    "--endpoint-url",
    metavar="URL",
    expose_value=False,
    callback=_use_endpoint,
    help="The S3 server of a bucket that is not mounted, where it is neither Amazon's nor configured.",
)
"""For verbs that open a bucket by its URL: this once it stands above the configuration."""
