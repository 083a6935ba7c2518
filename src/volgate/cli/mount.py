"""``volgate mount``: in the foreground, or detached with -d once the mount answers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from volgate import paths
from volgate.cli.arguments import Count, Seconds, Size
from volgate.cli.mount_options import HELP, parse_options, take_id_map
from volgate.errors import NotFound

if TYPE_CHECKING:
    from volgate.config.loading import Configuration
    from volgate.daemon.mountd import MountSettings

_FAILED: Final = 32
"""Exit status by mount(8)."""


@click.command()
@click.argument("source")
@click.argument("mountpoint", required=False)
@click.option("-d", "--detach", is_flag=True, help="Go to the background when the mount is ready.")
@click.option("--quota", type=Size(), help="Limit in bytes: 10G, 10GiB, none. Kept at the next mount without it.")
@click.option("--inodes", type=Count(), help="Limit of files, directories and links together: 100000, none.")
@click.option("--read-only", is_flag=True, help="Mount read-only; takes no ownership.")
@click.option("--attr-timeout", type=Seconds(), help="How long until changes made behind the mount are seen [60s].")
@click.option("--endpoint-url", metavar="URL", help="The S3 server of SOURCE, unless it is Amazon's.")
@click.option("--take-over", is_flag=True, help="Take a bucket from a host that is gone and left changes behind.")
@click.option("-o", "options", multiple=True, help=HELP)
@click.option("--debug", is_flag=True, help="Log everything.")
def mount(
    source: str,
    mountpoint: str | None,
    detach: bool,
    quota: tuple[int | None] | None,
    inodes: tuple[int | None] | None,
    read_only: bool,
    attr_timeout: float | None,
    endpoint_url: str | None,
    take_over: bool,
    options: tuple[str, ...],
    debug: bool,
) -> int:
    """Mount a directory, a bucket or a volume.

    SOURCE is a directory (with a '/' in it), s3://BUCKET[/PREFIX], or the name of a volume, which may know its
    MOUNTPOINT.

    SOURCE's files appear under MOUNTPOINT; a limit holds from the next write on. A directory with files in it is
    counted first. Without -d it stays in the foreground until it is unmounted, or ended by ^C. An owner without a mount
    ('volgate serve') gives the volume up for it.

    \b
    volgate mount /srv/data /mnt/data --quota 10GiB
    volgate mount s3://bucket/prefix /mnt/data --endpoint-url https://s3.example.org
    volgate mount projects -d
    """
    wanted = parse_options(",".join(options))
    if quota is not None:
        wanted["quota_bytes"] = quota[0]
    if inodes is not None:
        wanted["quota_inodes"] = inodes[0]
    if attr_timeout is not None:
        wanted["attr_timeout_s"] = attr_timeout
    if read_only:
        wanted["read_only"] = True
    if endpoint_url is not None:
        wanted.setdefault("storage", {})["endpoint_url"] = endpoint_url
    if take_over:
        wanted.setdefault("storage", {})["take_over"] = "yes"
    return mount_source(source, mountpoint, wanted, detach=detach, debug=debug)


def mount_source(source: str, mountpoint: str | None, wanted: dict[str, Any], *, detach: bool, debug: bool) -> int:
    """Mount; returns the exit status. Raises StorageException, click.ClickException: one line that says why not.

    Args:
        wanted: from the options, by the names of ``MountSettings``.
    """
    from volgate.cli.running import run_owner
    from volgate.config.loading import load

    configuration = load(paths.config_directory(), os.environ)
    try:
        settings = _settings(source, mountpoint, wanted, configuration)
    except NotFound as error:  # nothing that waiting or trying again could mend
        raise click.UsageError(str(error)) from error
    return run_owner(settings, configuration, detach=detach, debug=debug, status_of=lambda _: _FAILED)


def _settings(
    source: str, mountpoint: str | None, wanted: dict[str, Any], configuration: Configuration
) -> MountSettings:
    """Return what is to be mounted."""
    from volgate.daemon.checks import resolve_mount_point

    settings, known_place = settings_of(source, wanted, configuration)
    mountpoint = mountpoint or known_place
    if not mountpoint:
        raise click.UsageError(f"say where to mount {source}: 'volgate mount {source} MOUNTPOINT'")
    return attrs.evolve(settings, mount_point=resolve_mount_point(mountpoint))


def settings_of(source: str, wanted: dict[str, Any], configuration: Configuration) -> tuple[MountSettings, str]:
    """Return how to serve a volume without a mount, and where the catalog would mount it ("" = nowhere).

    Flags go over the catalog's options, over environment, over files.

    Args:
        wanted: from the options, by the names of ``MountSettings``.

    Raises:
        NotFound: a name that the catalog does not know.
    """
    from volgate.cli.sources import resolve, with_options
    from volgate.daemon.mountd import MountSettings
    from volgate.drivers.registry import is_bucket

    where, entry = resolve(source)
    if entry is not None:
        known = parse_options(entry.options)
        storage = {**known.get("storage", {}), **wanted.get("storage", {})}
        wanted = {**known, **wanted, "storage": storage}
    defaults: dict[str, Any] = {
        "allow_other": os.geteuid() == 0,
        "attr_timeout_s": configuration["mount.attr_timeout"],
        "stop_deadline_s": configuration["mount.stop_deadline"],
        "request_deadline_s": configuration["mount.request_deadline"],
        "metrics_address": configuration["metrics.listen"],
        "worker_user": configuration["mount.worker"],
    }
    id_map = take_id_map(wanted)
    storage = wanted.pop("storage", {})
    settings = {**defaults, **wanted}
    if is_bucket(where):  # the kernel and the cache each trust for half the time, so both together keep it
        settings["attr_timeout_s"] /= 2
        storage = {**storage, "attr_timeout": f"{settings['attr_timeout_s']}s"}
    found = MountSettings(
        source=with_options(where, storage, configuration),
        mount_point=None,
        state_directory=paths.state_directory(),
        runtime_directory=paths.runtime_directory(),
        id_map=id_map,
        volume_uuid=None if entry is None else entry.uuid,
        **settings,
    )
    return found, "" if entry is None else entry.mount_point
