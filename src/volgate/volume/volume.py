"""An open volume: its backend, identity, ownership, ledger and gate, taken in order and given back in reverse."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
from pathlib import Path
from typing import Final, Literal

import attrs
import trio

from volgate.drivers.base import BackendDirectory, BaseStorageBackend, exists
from volgate.dto import Usage, VolumeOperationContext
from volgate.errors import (
    Busy,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ReadOnly,
    StorageException,
    Unavailable,
    Unsupported,
    VolumeInUse,
)
from volgate.ledger.sqlite import SqliteLedger, database_path, slots_path
from volgate.volume.counting import OnProgress, count_usage, count_what_becomes_a_volume
from volgate.volume.epoch import load_epoch_id, name_epoch
from volgate.volume.fence import set_fence
from volgate.volume.identity import VolumeIdentity, load_identity, new_identity, store_identity
from volgate.volume.ownership import acquire_ownership
from volgate.volume.quota_gate import QuotaGate
from volgate.volume.snapshots.base import NoSnapshots, Snapshots
from volgate.volume.snapshots.native import NativeSnapshots
from volgate.volume.snapshots.preserving import PreservingSnapshots
from volgate.volume.snapshots.shown import ShownSnapshots
from volgate.volume.storage import none_yet

log = logging.getLogger(__name__)


_COUNT_AGAIN_S: Final = 30.0


class _Unchanged(enum.Enum):
    UNCHANGED = "unchanged"


UNCHANGED: Final = _Unchanged.UNCHANGED
"""As a limit: keep what the volume has."""
Limit = int | None | Literal[_Unchanged.UNCHANGED]


class Volume:
    """A volume that is open. ``open_volume`` makes it; ``close`` ends it.

    Attributes:
        backend: its storage. root: its open root directory.
        identity: who it is. gate: its quota. snapshots: its snapshots.
        read_only: nothing of it may be changed.
        counted: how its usage was found, one line for people.
        on_progress: called while it is counted in the background.
        drained: set once nothing more is stored, since the daemon ends.
        unfenced: why the storage's own limit does not stand behind the volume's; "" where it does, or has none.
        unscheduled: why the schedule could not take its last snapshot; "" where it could.
    """

    def __init__(
        self,
        backend: BaseStorageBackend,
        root: BackendDirectory,
        identity: VolumeIdentity,
        gate: QuotaGate,
        context: VolumeOperationContext,
        snapshots: Snapshots,
        *,
        counted: str,
        on_progress: OnProgress | None,
        held: contextlib.AsyncExitStack,
    ) -> None:
        self.backend = backend
        self.root = root
        self.identity = identity
        self.gate = gate
        self.context = context
        self.snapshots = snapshots
        self.read_only = context.read_only
        self.counted = counted
        self.drained = trio.Event()
        self.unfenced = self.unscheduled = ""
        self._on_progress = on_progress
        self._held = held

    async def set_quota(self, quota_bytes: Limit, quota_inodes: Limit) -> None:
        """Change the limits, durably and at once. Usage may then stand above them; only growth is refused.

        Raises:
            StorageException: the storage does not let its own limit go up with them; nothing changed.
        """
        identity = _with_limits(self.identity, quota_bytes, quota_inodes)
        is_raised_first = _grows(self.identity, identity) and not self.unfenced
        if is_raised_first:  # or the fence would hold the gateway itself
            await set_fence(self.backend, identity.quota_bytes, identity.quota_inodes)
        await store_identity(self.backend, identity)
        self.identity = identity
        self.gate.set_limits(identity.quota_bytes, identity.quota_inodes)
        if not is_raised_first:
            await self.fence()

    async def set_snapshot_limit(self, limit_bytes: int | None) -> None:
        """Change how much snapshots may keep, durably and at once. What is kept may stand above it.

        Raises:
            Unsupported: the storage keeps what it likes.
        """
        allowance = self.snapshots.allowance
        if allowance is None:
            raise Unsupported("the storage itself keeps what snapshots of this volume need, and cannot be limited")
        identity = attrs.evolve(self.identity, snapshot_bytes=limit_bytes)
        await store_identity(self.backend, identity)
        self.identity = identity
        allowance.limit_bytes = limit_bytes

    async def fence(self) -> None:
        """Have the storage's own limits stand a little above the volume's; why that failed is in ``unfenced``."""
        try:
            await set_fence(self.backend, self.identity.quota_bytes, self.identity.quota_inodes)
        except StorageException as error:
            log.warning("the storage's own limit is not behind the volume's", extra={"error": str(error)})
            self.unfenced = str(error)
        else:
            self.unfenced = ""

    async def run(self) -> None:
        """Do the backend's work in the background, and count where that is needed, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.backend.run)
            if self.gate.is_counting:
                await self._count()

    async def _count(self) -> None:
        while self.gate.is_counting:
            try:
                usage = await self.backend.count_usage(self._on_progress or (lambda _: None))
            except StorageException as error:
                log.warning("the volume could not be counted; it is tried again", extra={"error": str(error)})
                await trio.sleep(_COUNT_AGAIN_S)
            else:
                self.gate.end_counting(usage)
                self.counted = f"counted while it was in use: {usage.inodes} files"
                log.info("counted", extra={"used_bytes": usage.bytes_, "file_count": usage.inodes})

    def shown_snapshots(self) -> Volume | None:
        """Return a read-only volume whose root has a directory for each snapshot; None where there can be none."""
        if isinstance(self.snapshots, NoSnapshots):
            return None
        backend = ShownSnapshots(self.backend, self.snapshots)
        return Volume(
            backend, backend.root, self.identity, self.gate, attrs.evolve(self.context, read_only=True),
            NoSnapshots("a snapshot has none of its own"), counted="", on_progress=None,
            held=contextlib.AsyncExitStack(),
        )  # fmt: skip

    async def close(self) -> None:
        """Settle the ledger, give up ownership, close the backend; each step even if one before it fails."""
        await self._held.aclose()


def _with_limits(identity: VolumeIdentity, quota_bytes: Limit, quota_inodes: Limit) -> VolumeIdentity:
    if quota_bytes is not UNCHANGED:
        identity = attrs.evolve(identity, quota_bytes=quota_bytes)
    if quota_inodes is not UNCHANGED:
        identity = attrs.evolve(identity, quota_inodes=quota_inodes)
    return identity


def _grows(before: VolumeIdentity, after: VolumeIdentity) -> bool:
    """Return whether a limit goes up or away."""
    limits = ((before.quota_bytes, after.quota_bytes), (before.quota_inodes, after.quota_inodes))
    return any(old is not None and (new is None or new > old) for old, new in limits)


async def open_volume(
    backend: BaseStorageBackend,
    *,
    source: str,
    mount_path: Path | None,
    state_directory: Path,
    runtime_directory: Path,
    quota_bytes: Limit = UNCHANGED,
    quota_inodes: Limit = UNCHANGED,
    read_only: bool = False,
    volume_uuid: str | None = None,
    adopts: bool = True,
    on_progress: OnProgress | None = None,
) -> Volume:
    """Open a volume; adopt and count it at the first time.

    Args:
        backend: its storage, not open yet; closed with the volume, or at a failure.
        source: where the data lies, for names and messages.
        mount_path: absolute; where it will be mounted; None = nowhere.
        state_directory: holds ``volumes/ID/ledger.db``.
        runtime_directory: on tmpfs; holds ``ID.slots``.
        quota_bytes: limit in bytes, None = unlimited. quota_inodes: likewise.
        read_only: take no ownership and write nothing, no limits either; usage is counted.
        volume_uuid: the volume that must lie there; None = whatever does, or a new one.
        adopts: make what is no volume yet one.
        on_progress: called while the volume is counted.

    Raises:
        NotFound: the directory is missing, or no volume yet. VolumeInUse: another owns it; the message names it.
        InvalidArgument: names inside clash with the gateway's own; limits of what is to be read, and is no volume yet.
        Unavailable: the storage does not answer, or the volume that must lie there does not: perhaps it comes yet.
    Blocks while it counts.
    """
    async with contextlib.AsyncExitStack() as stack:
        context = VolumeOperationContext(
            "volume", mount_path or Path("/"), backend.backend_type, f"uid:{os.geteuid()}", read_only=read_only
        )
        stack.push_async_callback(backend.close)
        try:
            root = await backend.open_volume(context)
        except NotFound as error:
            if volume_uuid is not None:
                raise Unavailable(f"{source} is not there: is its storage mounted?") from error
            raise
        except Busy as error:  # whoever owns it has its cache, too
            raise VolumeInUse(str(error)) from error
        stack.callback(root.close)
        identity = known = await load_identity(backend)
        if volume_uuid is not None and (identity is None or identity.uuid != volume_uuid):
            raise Unavailable(
                f"{source} does not hold the volume of that name: is its storage mounted? If it was replaced for good, "
                "'volgate volume delete' and 'create' or 'adopt' enter what is there now"
            )
        if identity is None:
            if not adopts:
                raise none_yet(source)
            if read_only and (quota_bytes, quota_inodes) != (UNCHANGED, UNCHANGED):
                raise InvalidArgument(
                    f"{source} is no volume yet, and a read-only mount stores no limits: mount it writable once"
                )
            if await exists(backend, root, b".snapshots"):
                raise InvalidArgument(f"{source} holds '.snapshots', a name that volgate keeps for itself; rename it")
            identity = new_identity(
                context.mount_path.name if source in (".", "..") else source.rstrip("/").rsplit("/", 1)[-1], None, None
            )
        if not read_only:
            identity = _with_limits(identity, quota_bytes, quota_inodes)
        context = attrs.evolve(
            context,
            volume_id=identity.volume_id,
            quota_bytes=identity.quota_bytes,
            quota_inodes=identity.quota_inodes,
        )
        ledger = None
        keeps_usage = backend.capabilities.keeps_usage
        adopted: Usage | None = None
        if known is None and not read_only and not keeps_usage:
            adopted = await count_what_becomes_a_volume(backend, root, source, on_progress)
        if not read_only:
            try:
                await acquire_ownership(backend, identity.volume_id, mount_path)
            except PermissionDenied as error:
                raise PermissionDenied(f"{source} may not be written by this user; mount it read-only") from error
            except ReadOnly as error:
                raise ReadOnly(
                    f"{source} lies on a file system that is read-only; mount it with --read-only"
                ) from error
            stack.push_async_callback(backend.release_ownership)
            found = await load_identity(backend)
            if known is None and found is not None:
                raise Busy(f"another process made a volume of {source} meanwhile; try again")
            if identity != found:
                await store_identity(backend, identity)
        if not read_only and not keeps_usage:
            ledger = SqliteLedger(
                database_path(state_directory, identity.volume_id),
                slots_path(runtime_directory, identity.volume_id),
                identity.uuid,
                backend.key_of_name(root, b"", 0),
            )
            stack.callback(ledger.release)
        usage: Usage | None
        if keeps_usage:
            usage = None if read_only else backend.load_usage()
            counted = "being counted" if usage is None else "as the volume's journal says"
        else:
            usage, counted = await _find_usage(backend, root, ledger, on_progress, adopted)
        gate = QuotaGate(
            ledger,
            usage,
            volume_id=identity.volume_id,
            backend_type=backend.backend_type,
            quota_bytes=identity.quota_bytes,
            quota_inodes=identity.quota_inodes,
        )
        stack.push_async_callback(_close_gate, gate, backend)
        backend.watch_usage(gate.note_replaced)
        local = database_path(state_directory, identity.volume_id).with_name("snapshots")
        snapshots = await _open_snapshots(backend, root, gate, local, read_only=read_only)
        stack.push_async_callback(snapshots.close)
        if snapshots.allowance is not None:
            snapshots.allowance.limit_bytes = identity.snapshot_bytes
        volume = Volume(
            backend, root, identity, gate, context, snapshots,
            counted=counted, on_progress=on_progress, held=stack.pop_all(),
        )  # fmt: skip
        if not read_only:
            await volume.fence()
        return volume


async def _open_snapshots(
    backend: BaseStorageBackend, root: BackendDirectory, gate: QuotaGate, local: Path, *, read_only: bool
) -> Snapshots:
    if read_only:
        return NoSnapshots("the volume is mounted read-only")
    capabilities = backend.capabilities
    if capabilities.native_snapshots:
        return NativeSnapshots(backend, root, lambda: Usage(gate.used_bytes, gate.used_inodes))
    if capabilities.preserves:
        snapshots = PreservingSnapshots(backend, root, local)
        await snapshots.load()
        return snapshots
    return NoSnapshots(
        f"this volume ({backend.backend_type}) cannot have snapshots: its storage takes none, and gives no file "
        "handles (open_by_handle_at(2), for root only) by which volgate could make them"
    )


async def _close_gate(gate: QuotaGate, backend: BaseStorageBackend) -> None:
    try:
        if epoch_id := gate.close():
            await name_epoch(backend, epoch_id)
    except StorageException:
        log.exception("the ledger could not be closed; the volume is measured at its next start")


async def _find_usage(
    backend: BaseStorageBackend,
    root: BackendDirectory,
    ledger: SqliteLedger | None,
    on_progress: OnProgress | None,
    adopted: Usage | None,
) -> tuple[Usage, str]:
    """Return the volume's usage from its ledger, or by counting it, and how it was found.

    Args:
        adopted: what was counted just now, of what was no volume before.
    """
    if ledger is None:
        return await count_usage(backend, root, on_progress), "counted for a read-only mount"
    measure_key = backend.measure_key if backend.capabilities.survives_kill else None
    recovered = await ledger.recover(measure_key, await load_epoch_id(backend))
    usage, reason = recovered.usage, recovered.reason
    if usage is None:
        usage = adopted if adopted is not None else await count_usage(backend, root, on_progress)
        reason = f"counted: {reason}"
    await name_epoch(backend, ledger.begin(usage))
    return usage, reason
