"""``volgate control serve``: the API of this host; ``volgate control token``: who may use it over TCP."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from volgate import paths
from volgate.cli.output import confirm
from volgate.errors import InvalidArgument

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.control.roles import Grant
    from volgate.control.tokens import TokenFile
    from volgate.daemon.controld import ControlSettings

_DAY_S: Final = 86400.0


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
        address=configuration["control.listen"],
        tls_certificate=_secret(configuration["control.tls_certificate"], "control-tls-certificate"),
        tls_key=_secret(configuration["control.tls_key"], "control-tls-key"),
        tokens=_secret(None, "control-tokens") or _tokens_path(configuration),
        jwt_key=_secret(configuration["control.jwt_key"], "control-jwt-key"),
        jwt_algorithm=configuration["control.jwt_algorithm"],
        jwt_audience=configuration["control.jwt_audience"],
        jwt_issuer=configuration["control.jwt_issuer"],
        catalog=paths.catalog_path(),
        state_directory=paths.state_directory(),
        runtime_directory=paths.runtime_directory(),
        cache_directory=paths.cache_directory(),
        storage=storage_settings(configuration),
    )


def _secret(configured: str | None, credential: str) -> Path | None:
    """Return a file: as configured, else what systemd's LoadCredential= gives under this name, else None."""
    if configured is not None:
        return Path(configured)
    given = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), credential)
    return given if given.exists() else None


def _tokens_path(configuration: Configuration) -> Path:
    return Path(configuration["control.tokens"] or paths.config_directory() / "control-tokens.json")


def _tokens() -> TokenFile:
    from volgate.config.loading import load
    from volgate.control.tokens import TokenFile

    return TokenFile(_tokens_path(load(paths.config_directory(), os.environ)))


@control.group()
def token() -> None:
    """Make, list and revoke tokens for the API over TCP.

    They are kept as their SHA-256, in a file that root alone may read. Nobody needs one at the unix socket.
    """


@token.command()
@click.argument("name")
@click.option(
    "--grant",
    "grants",
    metavar="ROLE:VOLUME",
    multiple=True,
    required=True,
    help="reader, owner or admin; * = all volumes. May be given again.",
)
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="How long it is valid.")
@click.option("--json", "as_json", is_flag=True, help="An object of {name, token}.")
def create(name: str, grants: tuple[str, ...], days: int, as_json: bool) -> None:
    """Make a token and print it. It is shown this once.

    \b
    volgate control token create ann --grant owner:projects
    volgate control token create prometheus --grant 'reader:*' --days 365
    """
    from volgate.control.roles import parse_grant

    try:
        parsed = tuple(parse_grant(grant) for grant in grants)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    text = _tokens().create(name, parsed, days * _DAY_S)
    click.echo(json.dumps({"name": name, "token": text}) if as_json else text)
    _warn_of_unknown(parsed)


def _warn_of_unknown(grants: Iterable[Grant]) -> None:
    """Say which volumes of grants there are not: they may be made later, or be misspelt."""
    from volgate.cli.mounts import is_known

    named = {grant.volume_id for grant in grants if grant.volume_id is not None}
    unknown = sorted(volume_id for volume_id in named if not is_known(volume_id))
    if unknown:
        click.echo(
            f"volgate: no volume is known here by the name of {', '.join(unknown)}; granted all the same", err=True
        )


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="An array of {name, grants, created_at, expires_at}.")
def list_(as_json: bool) -> None:
    """List the tokens: who has them, what they may, until when.

    \b
    volgate control token list
    """
    from volgate.cli.listing import print_table

    found = _tokens().load()
    if as_json:
        described = [
            {
                "name": known.name,
                "grants": [str(grant) for grant in known.grants],
                "created_at": known.created_at,
                "expires_at": known.expires_at,
            }
            for known in found
        ]
        click.echo(json.dumps(described, indent=1))
        return
    rows = [("NAME", "MAY", "EXPIRES")]
    for known in found:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(known.expires_at))
        rows.append(
            (known.name, ", ".join(map(str, known.grants)), until if known.expires_at > time.time() else "expired")
        )
    if found:
        print_table(rows)
    else:
        click.echo("there are no tokens", err=True)


@token.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Take a token away; it lets nobody in from now on.

    \b
    volgate control token revoke ann
    """
    _tokens().revoke(name)
    confirm(f"{name}: revoked")
