"""``volgate config show|check``."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from volgate import paths
from volgate.cli.listing import print_table
from volgate.config.loading import load
from volgate.config.settings import SETTINGS


@click.group()
def config() -> None:
    """Show or check the configuration.

    It is read from volgate.toml, then conf.d/*.toml, then VOLGATE_SECTION__KEY in the environment; flags come on top.
    """


@config.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from: file and line, environment, default.")
@click.option("--json", "as_json", is_flag=True, help="An object of {value, origin} by section.key.")
def show(origin: bool, as_json: bool) -> None:
    """Show every setting as it holds now.

    \b
    volgate config show --origin
    VOLGATE_LOG__LEVEL=debug volgate config show --json
    """
    configuration = load(paths.config_directory(), os.environ)
    if as_json:
        values = {name: {"value": value.value, "origin": value.origin} for name, value in configuration.values.items()}
        click.echo(json.dumps(values, indent=1))
        return
    rows = []
    for setting in SETTINGS:
        value = configuration.values[setting.name]
        rows.append((setting.name, _show(value.value), value.origin if origin else setting.help))
    print_table(rows)


def _show(value: Any) -> str:
    """Return a value as a file has it, or nearly."""
    if value is None or value == ():
        return "-"
    if isinstance(value, tuple):
        return " ".join(value) if isinstance(value[-1], str) else ":".join(map(str, value))
    return str(value)


@config.command()
@click.option("--json", "as_json", is_flag=True, help="The files that were read, in order.")
def check(as_json: bool) -> None:
    """Check all files and the environment.

    Exit status 78, and one line with file, line and section, where something is wrong.

    \b
    volgate config check
    """
    configuration = load(paths.config_directory(), os.environ)
    if as_json:
        click.echo(json.dumps([str(file) for file in configuration.files]))
        return
    read = ", ".join(map(str, configuration.files)) or f"no file in {paths.config_directory()}: defaults hold"
    click.echo(f"in order: {read}")
