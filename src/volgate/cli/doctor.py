"""``volgate doctor``: every prerequisite of this host and user, and the command that mends what is missing.

What a volume's storage lacks is looked at in ``doctor_source``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs
import click

from volgate import paths
from volgate.cli.finding import Finding

_MIN_KERNEL: Final = (5, 12)
"""FUSE_HANDLE_KILLPRIV_V2 came with Linux 5.11, idmapped mounts with 5.12; what is tested is 6.1 and later."""


_OPTIONS: Final = (
    "For s3://: region=, credentials_file= (as ~/.aws/credentials, mode 600), anonymous, "
    "addressing=auto|path|virtual, ca_bundle=. For ceph:// and hammerspace://: as those of mount."
)


@click.command()
@click.argument("source", required=False)
@click.option("--endpoint-url", metavar="URL", help="The S3 server of SOURCE, unless it is Amazon's.")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE,...", help=_OPTIONS)
@click.option("--json", "as_json", is_flag=True, help="An array of {check, state, message, remedy}.")
def doctor(source: str | None, endpoint_url: str | None, options: tuple[str, ...], as_json: bool) -> int:
    """Check what volgate needs on this host.

    Exit status 1 where something is missing; each finding comes with the command that mends it.

    With SOURCE, check that in place of the host. Of a directory, a mount point, or a volume's name: whether it can be
    mounted, or where it is, and what its file system cannot do. Of s3://BUCKET/PREFIX: whether the credentials suffice
    and which promises the server keeps; for that, objects below .volgate/probe/ are made and deleted. Of
    hammerspace://ANVIL/SHARE: whether it is mounted, and what its Anvil says. Nothing else is changed.

    \b
    volgate doctor
    volgate doctor /srv/data
    volgate doctor s3://bucket/prefix --endpoint-url http://localhost:9000
    volgate doctor hammerspace://anvil/share -o mount_path=/mnt/share,credentials_file=/etc/volgate/anvil
    """
    if source is None:
        findings = [finding for check in _CHECKS for finding in check()]
    else:
        from volgate.cli.doctor_source import check_source

        findings = list(check_source(source, endpoint_url, options))
    if as_json:
        click.echo(json.dumps([attrs.asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            mark = {"ok": "ok     ", "warning": "warning", "missing": "MISSING"}[finding.state]
            click.echo(f"{mark}  {finding.check}: {finding.message}")
            if finding.remedy:
                click.echo(f"         -> {finding.remedy}")
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def _check_kernel() -> Iterator[Finding]:
    release = os.uname().release
    version = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
    if version < _MIN_KERNEL:
        yield Finding("kernel", "warning", f"Linux {release} is older than what is tested", "use Linux 6.1 or later")
    else:
        yield Finding("kernel", "ok", f"Linux {release}")


def _check_device() -> Iterator[Finding]:
    device = Path("/dev/fuse")
    if not device.exists():
        remedy = "modprobe fuse; in a container: start it with --device /dev/fuse"
        yield Finding("fuse device", "missing", "/dev/fuse does not exist", remedy)
    elif not os.access(device, os.R_OK | os.W_OK):
        yield Finding("fuse device", "missing", "/dev/fuse may not be opened by this user", "chmod 666 /dev/fuse")
    else:
        yield Finding("fuse device", "ok", "/dev/fuse can be opened")


def _check_fusermount() -> Iterator[Finding]:
    path = shutil.which("fusermount3")
    if path is None:
        state = "warning" if os.geteuid() == 0 else "missing"
        message = "fusermount3 is missing; ordinary users need it to mount"
        yield Finding("fusermount3", state, message, "apt-get install fuse3")
    elif not os.stat(path).st_mode & 0o4000 and os.geteuid() != 0:
        message = f"{path} is not setuid root; ordinary users cannot mount"
        yield Finding("fusermount3", "missing", message, f"chmod u+s {path}")
    else:
        yield Finding("fusermount3", "ok", path)
    if os.geteuid() != 0 and not _allows_other_users():
        message = "'-o allow_other' will be refused: /etc/fuse.conf has no user_allow_other"
        yield Finding("fuse.conf", "warning", message, "echo user_allow_other >>/etc/fuse.conf, as root")


def _allows_other_users() -> bool:
    try:
        return any(line.strip() == "user_allow_other" for line in Path("/etc/fuse.conf").read_text().splitlines())
    except OSError:
        return False


def _check_folders() -> Iterator[Finding]:
    for name, folder in (("state", paths.state_directory()), ("runtime", paths.runtime_directory())):
        above = next(path for path in (folder, *folder.parents) if path.exists())
        if not os.access(above, os.W_OK):
            message = f"{folder} cannot be written, since {above} belongs to somebody else"
            remedy = (
                "set XDG_RUNTIME_DIR and XDG_STATE_HOME to folders of your own" if os.geteuid() else f"ls -ld {above}"
            )
            yield Finding(f"{name} folder", "missing", message, remedy)
            continue
        space = os.statvfs(above)
        free = space.f_bavail * space.f_frsize
        if free < 16 << 20:
            message = f"{free >> 20} MiB are free for {folder}: ledgers cannot be written when it is full"
            yield Finding(f"{name} folder", "warning", message, f"df -h {above}; make room")
        else:
            yield Finding(f"{name} folder", "ok", str(folder))


def _check_limits() -> Iterator[Finding]:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 65536:
        message = f"a daemon may have {hard} open files at most; each open file of a user needs one"
        yield Finding("open files", "warning", message, "raise LimitNOFILE= of the unit, or 'ulimit -Hn'")
    else:
        yield Finding("open files", "ok", f"up to {hard}")


def _check_mount_helper() -> Iterator[Finding]:
    if os.geteuid() == 0:
        if Path("/sbin/mount.volgate").exists():
            yield Finding("mount helper", "ok", "/sbin/mount.volgate: lines in fstab work")
        else:
            message = "/sbin/mount.volgate is missing: lines in fstab do not work"
            yield Finding("mount helper", "warning", message, "tools/install")


def _check_indexers() -> Iterator[Finding]:
    config = Path("/etc/updatedb.conf")
    if config.exists() and "fuse.volgate" not in config.read_text(errors="replace"):
        message = "updatedb walks through every mount each night"
        remedy = "add fuse.volgate to PRUNEFS in /etc/updatedb.conf"
        yield Finding("indexers", "warning", message, remedy)


def _check_configuration() -> Iterator[Finding]:
    from volgate.config.loading import load
    from volgate.errors import StorageException

    try:
        files = load(paths.config_directory(), os.environ).files
    except StorageException as error:
        yield Finding("configuration", "missing", str(error), "mend the file; 'volgate config check' reads it again")
    else:
        yield Finding("configuration", "ok", ", ".join(map(str, files)) or "defaults hold, there is no file")


def _check_mounts() -> Iterator[Finding]:
    from volgate.cli.mounts import find_all

    for mount in find_all():
        if mount["state"] == "dead":
            message = f"{mount['mount_point']} is a dead mount: nobody serves {mount['volume_id']} any more"
            remedy = f"mount it again, or: volgate umount {mount['mount_point']}"
            yield Finding("mounts", "missing", message, remedy)
        for problem in mount.get("problems", ()):
            state = "missing" if problem["degrades"] else "warning"
            yield Finding("mounts", state, f"{mount['mount_point']}: {problem['message']}")


_CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    _check_kernel,
    _check_device,
    _check_fusermount,
    _check_folders,
    _check_limits,
    _check_mount_helper,
    _check_indexers,
    _check_configuration,
    _check_mounts,
)
