"""``volgate doctor SOURCE``: whether a directory, a bucket or a share can be mounted, and what it cannot do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import trio

from volgate import errors, paths
from volgate.cli.finding import Finding
from volgate.cli.mounts import find
from volgate.control.client import ask
from volgate.core.names import SNAPSHOTS_NAME
from volgate.core.sizes import format_size
from volgate.daemon.health import PROMISES
from volgate.drivers.registry import Source
from volgate.dto import VolumeOperationContext

if TYPE_CHECKING:
    from volgate.drivers.base import BackendSpace, BaseStorageBackend, Capabilities, StorageInspection
    from volgate.volume.catalog import CatalogEntry
    from volgate.volume.identity import VolumeIdentity

_LACKS: Final = {
    "inline_io": "its calls can hang, as those of a network do: they go through threads, which takes longer",
    "ownership": "this user may not give files away: all new ones are this user's",
    "xattrs": "user.* attributes are refused",
    "acls": "access control lists are refused",
    "rename_flags": "exchanging two names is refused",
    "durable_keys": "files cannot be found again by handles: after a crash the volume is counted",
}
"""What a mount lacks where a directory does not have one of ``Capabilities``."""
_SET_CLOCK: Final = "timedatectl set-ntp true"
_LEAST_POLICY: Final = (
    "allow s3:ListBucket, s3:ListBucketMultipartUploads, s3:GetBucketVersioning on the bucket, and s3:GetObject, "
    "s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload on what is in it"
)
_OTHER_KEYS: Final = (
    "take the access key and the secret key that belong together: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or -o "
    "credentials_file="
)
_REMEDIES: Final = {
    "SignatureDoesNotMatch": _OTHER_KEYS,
    "InvalidAccessKeyId": _OTHER_KEYS,
    "XAdminUserNotFound": _OTHER_KEYS,
    "ExpiredToken": _OTHER_KEYS + ", with a new session token",
    "RequestTimeTooSkewed": _SET_CLOCK,
}
"""By S3's error codes; any other refusal is one of rights."""
_CLOCK_S: Final = 60


def check_source(text: str, endpoint_url: str | None, options: tuple[str, ...]) -> Iterator[Finding]:
    """Yield what is found of a directory, a volume's name, or a URL.

    Raises:
        click.UsageError: it is none of these, or the options fit only a bucket.
    """
    if text.startswith("s3://"):
        yield from _check_bucket(text, _bucket_options(endpoint_url, options))
        return
    if endpoint_url or (options and "://" not in text):
        raise click.UsageError("--endpoint-url is for s3://BUCKET, and -o for URLs")
    from volgate.cli.sources import resolve, resolve_with_configuration

    mount = _find_mount(text)
    if mount is None or options:
        source = resolve_with_configuration(text, ",".join(options))
    else:
        lies = ask(Path(mount["socket"]), "GET", "/v1/source")
        source = Source(lies["type"], lies["text"], lies["options"])
    if mount is not None:
        message = f"{source.text} is mounted at {mount['mount_point']} as volume {mount['volume_id']}"
        yield Finding("mount", "ok", message)
    if source.backend_type == "s3":  # a volume's name, or a mount point
        yield from _check_bucket(source.text, dict(source.options))
    else:
        entry = resolve(text)[1] if mount is None else None
        yield from _check_directory(source, entry, "can be mounted" if mount is None else "can be used")


def _find_mount(text: str) -> dict[str, Any] | None:
    """Return the status of the mount that this is, or that owns this; None where none can be asked."""
    with contextlib.suppress(errors.NotFound, errors.InvalidArgument):
        status = find(text, owner=True)
        return status if status["mount_point"] is not None and status.get("socket") else None
    return None


def _check_directory(source: Source, entry: CatalogEntry | None, use: str) -> Iterator[Finding]:
    """Open it as a mount does, without taking or changing anything."""
    where = source.text
    if os.path.isdir(where) and not os.access(where, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"ls -ld {where}; of NFS: export it with no_root_squash, or mount --read-only"
        yield Finding("access", "missing", f"this user may not read and write {where}", remedy)
        return
    try:
        yield from trio.run(_look, source, entry, use)
    except errors.StorageException as error:
        yield Finding("directory", "missing", str(error))


async def _look(source: Source, entry: CatalogEntry | None, use: str) -> list[Finding]:
    from volgate.drivers.base import exists
    from volgate.volume.identity import load_identity
    from volgate.volume.storage import make_backend

    where, backend = source.text, make_backend(source)
    try:
        context = VolumeOperationContext("volume", Path("/"), source.backend_type, "cli", read_only=True)
        try:
            root = await backend.open_volume(context)
        except errors.NotFound as error:
            return await _look_behind(where, entry, backend, error)
        try:
            space, identity = await backend.get_space(), await load_identity(backend)
            if entry is not None and (identity is None or identity.uuid != entry.uuid):
                message = f"{where} does not hold the volume {entry.volume_id}: is its storage mounted?"
                return [Finding("directory", "missing", message)]
            if identity is None and await exists(backend, root, SNAPSHOTS_NAME):
                message = f"{where} holds '.snapshots', a name that volgate keeps for itself"
                return [Finding("directory", "missing", message, f"mv {where}/.snapshots to another name")]
            # A Ceph without its manager cannot tell.
            free = f"; {format_size(space.free_bytes)} are free in it" if space.total_bytes else ""
            return [
                Finding("directory", "ok", f"{where} {use}{free}"),
                *_describe_volume(identity, space),
                *_describe_storage(await backend.inspect()),
                *_describe_capabilities(backend.capabilities),
            ]
        finally:
            root.close()
    finally:
        await backend.close()


async def _look_behind(
    where: str, entry: CatalogEntry | None, backend: BaseStorageBackend, error: errors.NotFound
) -> list[Finding]:
    """Return what is found of a volume that cannot be opened: its storage may tell more than that."""
    if "://" not in where and entry is not None:
        return [Finding("directory", "missing", f"{where} is not there: is its storage mounted?")]
    if "://" not in where:
        return [Finding("directory", "missing", f"{where} does not exist", f"mkdir -p {where}")]
    told: list[Finding] = []
    with contextlib.suppress(errors.NotFound):
        told += _describe_storage(await backend.inspect())
    remedy = "" if told else f"volgate volume create NAME {where} ... makes it"
    return [Finding("directory", "missing", str(error), remedy), *told]


def _describe_volume(identity: VolumeIdentity | None, space: BackendSpace) -> Iterator[Finding]:
    if identity is None:
        yield Finding("volume", "ok", "it is none yet: its first mount counts what is in it, and finds volumes within")
        return
    limit = identity.quota_bytes
    yield Finding("volume", "ok", f"{identity.volume_id}, limit {format_size(limit)}")
    if limit is not None and 0 < space.total_bytes < limit:
        message = f"the limit is above all that the storage has, {format_size(space.total_bytes)}: it fills up before"
        yield Finding("capacity", "warning", message, f"enlarge it, or: volgate quota set {identity.volume_id} SIZE")


def _describe_capabilities(able: Capabilities) -> Iterator[Finding]:
    for name, loss in _LACKS.items():
        if not getattr(able, name):
            yield Finding(name, "warning", loss)
    if able.native_snapshots:
        yield Finding("snapshots", "ok", "the storage takes them")
    elif able.preserves:
        line = "they keep a file before its first change: a copy, but where the file system shares blocks (btrfs, xfs)"
        yield Finding("snapshots", "ok", line)
    else:
        yield Finding("snapshots", "warning", "there are none: they want root, and a local file system")


def _describe_storage(inspected: StorageInspection) -> Iterator[Finding]:
    for subject, line in inspected.facts.items():
        yield Finding(subject, "ok", line)
    for line in inspected.missing:
        yield Finding("storage", "warning", line)


def _bucket_options(endpoint_url: str | None, options: tuple[str, ...]) -> dict[str, str]:
    """Return what is set of a bucket's server: flags over the configuration."""
    from volgate.config.loading import load
    from volgate.config.settings import SETTINGS

    found = dict(word.partition("=")[::2] for text in options for word in text.split(",") if word)
    unknown = found.keys() - {"region", "credentials_file", "anonymous", "addressing", "ca_bundle", "proxy"}
    if unknown:
        raise click.UsageError(f"-o: unknown option '{min(unknown)}'")
    if endpoint_url:
        found["endpoint_url"] = endpoint_url
    configuration = load(paths.config_directory(), os.environ)
    configured = {setting.key: configuration[setting.name] for setting in SETTINGS if setting.section == "s3"}
    return {**{key: value for key, value in configured.items() if value}, **found}


def _check_bucket(source: str, options: dict[str, str]) -> Iterator[Finding]:
    from volgate.drivers.s3.settings import S3Settings
    from volgate.drivers.s3.store import S3ObjectStore

    try:
        store = S3ObjectStore(S3Settings.from_source(source, options))
    except errors.StorageException as error:
        yield Finding("settings", "missing", str(error))
        return
    try:
        trio.run(partial(store.open, writable=True))
    except errors.PermissionDenied as error:
        remedy = next((remedy for code, remedy in _REMEDIES.items() if code in str(error)), _LEAST_POLICY)
        yield Finding("credentials", "missing", str(error), remedy)
        return
    except errors.StorageException as error:
        yield Finding("server", "missing", str(error))
        return
    yield Finding("server", "ok", f"{source} can be listed, written and deleted")
    if abs(store.clock_skew_s) > _CLOCK_S:
        message = f"this host's clock is {store.clock_skew_s:+.0f} s off the server's; S3 refuses from 900 s on"
        yield Finding("clock", "warning", message, _SET_CLOCK)
    else:
        yield Finding("clock", "ok", "it agrees with the server's")
    if store.keeps_versions:
        message = (
            "the bucket keeps what is replaced and deleted: that takes space, and no limit counts it; snapshots find "
            "there what other tools replaced, with the rights s3:ListBucketVersions and s3:GetObjectVersion"
        )
        yield Finding("versions", "warning", message, "a lifecycle rule with NoncurrentVersionExpiration ends it")
    for promise, loss in PROMISES.items():
        if getattr(store.capabilities, promise):
            yield Finding(promise, "ok", "the server keeps it")
        else:
            remedy = "use https" if promise == "checksums" else "let only one host write below the prefix"
            yield Finding(promise, "warning", f"the server ignores it: {loss}", remedy)
