"""``volgate control serve``: the API of this host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from volgate import paths
from volgate.cli.output import confirm

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.daemon.controld import ControlSettings


@click.group()
def control() -> None:
    """Serve the control API of this host.

    HTTP and JSON over a unix socket: volumes, limits, snapshots, metrics. Section [control] of the configuration
    says who may ask for what.
    """


@control.command()
@click.option("--debug", is_flag=True, help="Log everything.")
def serve(debug: bool) -> int:
    """Serve until SIGTERM or ^C.

    \b
    volgate control serve
    systemctl enable --now volgate-control.socket
    curl --unix-socket /run/volgate/control.sock http://localhost/v1/volumes
    """
    from volgate import logs
    from volgate.config.loading import load
    from volgate.daemon import controld

    configuration = load(paths.config_directory(), os.environ)
    level = "debug" if debug else configuration["log.level"]
    logs.set_up(level=level, as_json=configuration["log.format"] == "json")
    return controld.run(_settings(configuration), on_ready=lambda line: confirm(line, err=True))


def _settings(configuration: Configuration) -> ControlSettings:
    from volgate.cli.sources import storage_settings
    from volgate.daemon.controld import ControlSettings

    return ControlSettings(
        socket=Path(configuration["control.socket"] or paths.control_socket_path()),
        group=configuration["control.group"],
        roles=configuration["control.roles"],
        catalog=paths.catalog_path(),
        state_directory=paths.state_directory(),
        runtime_directory=paths.runtime_directory(),
        cache_directory=paths.cache_directory(),
        storage=storage_settings(configuration),
    )
