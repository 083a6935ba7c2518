"""``volgate serve``: the owner of a volume without a mount."""

from __future__ import annotations

import os
from typing import Any

import attrs
import click

from volgate import paths
from volgate.cli.arguments import Seconds, Target
from volgate.cli.mount_options import HELP, parse_options
from volgate.errors import InvalidArgument


@click.command()
@click.argument("target", type=Target())
@click.option("-d", "--detach", is_flag=True, help="Go to the background when it is ready.")
@click.option("--until-idle", type=Seconds(), help="End when nothing was asked of it, and nothing under way, so long.")
@click.option("--existing", is_flag=True, help="Only what is a volume already.")
@click.option("--endpoint-url", metavar="URL", help="The S3 server of TARGET, unless it is Amazon's.")
@click.option("--take-over", is_flag=True, help="Take a bucket from a host that is gone and left changes behind.")
@click.option("-o", "options", multiple=True, help=HELP)
@click.option("--debug", is_flag=True, help="Log everything.")
def serve(
    target: str,
    detach: bool,
    until_idle: float | None,
    existing: bool,
    endpoint_url: str | None,
    take_over: bool,
    options: tuple[str, ...],
    debug: bool,
) -> int:
    """Own a volume without mounting it.

    TARGET is the name of a volume, a directory (with a '/' in it) or s3://BUCKET[/PREFIX], with the options of 'mount'.
    Snapshots by schedule are taken, a restore that was cut off goes on, what a bucket does not have yet is stored, and
    'snapshot', 'quota', 'flush' and their like are served. 'volgate umount TARGET' ends it, and a mount of the volume
    does by itself. Verbs that need an owner start one for some seconds: this is for a schedule, or much work.

    \b
    volgate serve projects -d
    volgate serve s3://bucket/prefix --endpoint-url https://s3.example.org --until-idle 10min
    """
    from volgate.cli.exit_status import exit_status
    from volgate.cli.mount import settings_of
    from volgate.cli.running import run_owner
    from volgate.config.loading import load
    from volgate.volume.storage import check_there

    wanted: dict[str, Any] = parse_options(",".join(options))
    if endpoint_url is not None:
        wanted.setdefault("storage", {})["endpoint_url"] = endpoint_url
    if take_over:
        wanted.setdefault("storage", {})["take_over"] = "yes"
    configuration = load(paths.config_directory(), os.environ)
    settings, _ = settings_of(target, wanted, configuration)
    if existing and settings.volume_uuid is None:
        check_there(settings.source)
    if settings.read_only:
        raise InvalidArgument(f"{target} is to be read only, so nobody owns it; 'volgate mount' shows it")
    if until_idle is not None:  # nobody finds it there for so short a time, and a mount may have the address
        settings = attrs.evolve(settings, metrics_address=None)
    settings = attrs.evolve(settings, existing=existing, until_idle_s=until_idle)
    return run_owner(settings, configuration, detach=detach, debug=debug, status_of=exit_status)
