"""Argument types that several verbs share."""

from __future__ import annotations

from typing import Any

import click

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
