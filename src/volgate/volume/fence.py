"""The storage's own limit as a fence behind the volume's, for who writes beside the gateway.

Only a limit that the gateway set is ever changed or lifted: one of an administrator's stays as it is. What was set is
kept in the reserved file ``fence``, before and after the change, so that a crash in between loses nothing.
"""

from __future__ import annotations

import json
from typing import Final

from volgate.core.fence import fence_bytes, fence_inodes
from volgate.core.sizes import format_size
from volgate.drivers.base import BaseStorageBackend, NativeQuota
from volgate.errors import NotPermitted

_FILE: Final = "fence"
_NONE: Final = NativeQuota(None, None)


async def set_fence(backend: BaseStorageBackend, quota_bytes: int | None, quota_inodes: int | None) -> None:
    """Have the storage's own limit stand a little above the volume's; none where that has none.

    Raises:
        NotPermitted: somebody else's limit stands there. PermissionDenied: the credentials do not suffice.
        StorageException: the storage does not do it.
    Does nothing without ``native_quota``. Blocks for the storage.
    """
    if not backend.capabilities.native_quota:
        return
    wanted = NativeQuota(
        None if quota_bytes is None else fence_bytes(quota_bytes),
        None if quota_inodes is None else fence_inodes(quota_inodes),
    )
    present = await backend.get_native_quota()
    is_ours = _is(present, _NONE) or any(_is(present, one) for one in await _load(backend))
    if not is_ours and not _is(wanted, _NONE):
        raise NotPermitted(
            f"the storage has a limit of its own, {_describe(present)}, which volgate did not set and leaves as it is"
        )
    if not is_ours or _is(present, wanted):
        return
    await _store(backend, [present, wanted])
    await backend.set_native_quota(wanted)
    await _store(backend, [wanted])


def _is(present: NativeQuota, wanted: NativeQuota) -> bool:
    """Return whether the storage has what is wanted; some have no limit of inodes, and show none."""
    return present.bytes_ == wanted.bytes_ and present.inodes in (None, wanted.inodes)


def _describe(quota: NativeQuota) -> str:
    size = "" if quota.bytes_ is None else format_size(quota.bytes_)
    inodes = "" if quota.inodes is None else f"{quota.inodes} inodes"
    return " and ".join(filter(None, (size, inodes)))


async def _load(backend: BaseStorageBackend) -> list[NativeQuota]:
    """Return what the gateway may have set."""
    content = await backend.load_reserved(_FILE)
    return [] if content is None else [NativeQuota(*limits) for limits in json.loads(content)]


async def _store(backend: BaseStorageBackend, quotas: list[NativeQuota]) -> None:
    await backend.store_reserved(_FILE, json.dumps([(quota.bytes_, quota.inodes) for quota in quotas]).encode())
