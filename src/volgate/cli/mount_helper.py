"""``mount.volgate``: what mount(8) and fstab call as ``/sbin/mount.volgate SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]``.

Returns when the mount answers, with mount(8)'s exit status; the daemon stays in the background. A line in fstab:
    projects  /mnt/projects  volgate  _netdev,nofail,x-systemd.automount,quota=10G  0  0
"""

from __future__ import annotations

import sys
from typing import Final

import click

from volgate.errors import StorageException

_USAGE: Final = "usage: mount.volgate SOURCE MOUNTPOINT [-sfnv] [-t TYPE] [-o OPTIONS]"
_SWITCHES: Final = frozenset("sfnv")


def main(argv: list[str] | None = None) -> int:
    """Mount as mount(8) asks for it; returns its exit status."""
    try:
        source, mount_point, options, pretend = _parse(sys.argv[1:] if argv is None else argv)
    except ValueError as error:
        return _say(f"{error}; {_USAGE}", 1)
    from volgate.cli.mount import mount_source
    from volgate.cli.mount_options import parse_options

    try:
        wanted = parse_options(options)
        return 0 if pretend else mount_source(source, mount_point, wanted, detach=True, debug=False)
    except click.ClickException as error:
        return _say(error.format_message(), 1)
    except StorageException as error:
        return _say(str(error), 32)


def _parse(arguments: list[str]) -> tuple[str, str, str, bool]:
    """Return source, mount point, options, and whether only to pretend (-f). Raises ValueError."""
    places, options, pretend, waiting = [], [], False, iter(arguments)
    for argument in waiting:
        if not argument.startswith("-") or argument == "-":
            places.append(argument)
        elif argument in ("-o", "-t", "-N"):
            value = next(waiting, None)
            if value is None:
                raise ValueError(f"{argument} needs a value")
            if argument == "-o":
                options.append(value)
        elif argument.startswith("-o"):
            options.append(argument[2:])
        elif set(argument[1:]) <= _SWITCHES:
            pretend = pretend or "f" in argument
        else:
            raise ValueError(f"unknown argument '{argument}'")
    if len(places) != 2:
        raise ValueError("a source and a mount point are needed")
    return places[0], places[1], ",".join(options), pretend


def _say(message: str, status: int) -> int:
    click.echo(f"mount.volgate: {message}", err=True)
    return status
