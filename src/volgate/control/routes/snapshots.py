"""Snapshots of volumes. All is asked of the volume's owner; what may take long is waited for as long as it takes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from volgate.control import convert
from volgate.control.dto.fields import RelativePath, SnapshotId
from volgate.control.dto.request import (
    CreateSnapshotRequest,
    RestoreRequest,
    SetScheduleRequest,
    SetSnapshotLimitRequest,
)
from volgate.control.dto.response import (
    ChangeField,
    ChangePage,
    RestorePlanResponse,
    RestoreResponse,
    ScheduleResponse,
    SnapshotDetailResponse,
    SnapshotLimitResponse,
    SnapshotPage,
    SnapshotResponse,
)
from volgate.control.paging import DEFAULT_LIMIT, After, Limit, cut_page
from volgate.control.roles import Role
from volgate.control.routes.shared import InVolume, OfSnapshot, Services, Using, ask_owner, may
from volgate.errors import NotFound

router = APIRouter(tags=["snapshots"])
_COUNTS: Final = ("created", "replaced", "removed", "adjusted")


async def _list(services: Services, volume_id: str) -> list[SnapshotResponse]:
    found = await ask_owner(services, volume_id, "GET", "/v1/snapshots")
    return [convert.to_snapshot_response(convert.snapshot_from_owner(info)) for info in found]


@router.get("/volumes/{volume_id}/snapshots", dependencies=[may(Role.READER)])
async def list_snapshots(
    services: Using, volume_id: InVolume, limit: Limit = DEFAULT_LIMIT, cursor: After = None
) -> SnapshotPage:
    """List snapshots, the oldest first."""
    found = await _list(services, volume_id)
    page, next_cursor = cut_page(found, lambda info: (info.created_at, info.snapshot_id), limit, cursor)
    return SnapshotPage(items=page, next_cursor=next_cursor)


@router.post("/volumes/{volume_id}/snapshots", status_code=201, dependencies=[may(Role.OWNER)])
async def create_snapshot(services: Using, volume_id: InVolume, request: CreateSnapshotRequest) -> SnapshotResponse:
    """Take a snapshot: all that was written before is in it, and nothing that is written later.

    With ``path`` it holds only the file there, where the storage takes such (Hammerspace); else it is refused.
    """
    body = {"snapshot_id": request.snapshot_id, "path": request.path, "metadata": request.metadata}
    taken = await ask_owner(services, volume_id, "POST", "/v1/snapshots", body)
    return convert.to_snapshot_response(convert.snapshot_from_owner(taken))


@router.get("/volumes/{volume_id}/snapshots/{snapshot_id}", dependencies=[may(Role.READER)])
async def show_snapshot(services: Using, volume_id: InVolume, snapshot_id: OfSnapshot) -> SnapshotDetailResponse:
    """Say what is known of a snapshot, and where its files are to be read."""
    found = next((info for info in await _list(services, volume_id) if info.snapshot_id == snapshot_id), None)
    if found is None:
        raise NotFound(f"volume {volume_id} has no snapshot {snapshot_id}")
    status = await services.owners.ask(volume_id, "GET", "/v1/status")
    return SnapshotDetailResponse(snapshot=found, view=convert.locate_view(status, snapshot_id))


@router.delete("/volumes/{volume_id}/snapshots/{snapshot_id}", status_code=204, dependencies=[may(Role.OWNER)])
async def delete_snapshot(services: Using, volume_id: InVolume, snapshot_id: OfSnapshot) -> None:
    """Delete a snapshot; what earlier ones need of it stays."""
    await ask_owner(services, volume_id, "POST", "/v1/snapshots/delete", {"snapshot_id": snapshot_id})


@router.get("/volumes/{volume_id}/snapshots/{snapshot_id}/diff", dependencies=[may(Role.READER)])
async def show_differences(
    services: Using,
    volume_id: InVolume,
    snapshot_id: OfSnapshot,
    later_id: Annotated[SnapshotId | None, Query(description="A later snapshot; else what is now.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: After = None,
) -> ChangePage:
    """Say what changed since a snapshot, or from it to a later one. Each page compares anew."""
    body = {"snapshot_id": snapshot_id, "later_id": later_id}
    found = convert.changes_from_owner(await ask_owner(services, volume_id, "POST", "/v1/snapshots/diff", body))
    page, next_cursor = cut_page(found, _by_path, limit, cursor)
    return ChangePage(items=page, next_cursor=next_cursor)


@router.get("/volumes/{volume_id}/snapshots/{snapshot_id}/plan", dependencies=[may(Role.READER)])
async def plan_restore(
    services: Using,
    volume_id: InVolume,
    snapshot_id: OfSnapshot,
    path: Annotated[RelativePath, Query()] = "",
    limit: Limit = DEFAULT_LIMIT,
    cursor: After = None,
) -> RestorePlanResponse:
    """Say what a restore would do, and do nothing. Each page looks anew."""
    body = {"snapshot_id": snapshot_id, "path": path, "dry_run": True}
    plan = await ask_owner(services, volume_id, "POST", "/v1/snapshots/restore", body)
    page, next_cursor = cut_page(convert.changes_from_owner(plan["changes"]), _by_path, limit, cursor)
    counts = {name: plan[name] for name in _COUNTS}
    return RestorePlanResponse(**counts, refused=plan["refused"], items=page, next_cursor=next_cursor)


@router.post("/volumes/{volume_id}/snapshots/{snapshot_id}/restore", dependencies=[may(Role.OWNER)])
async def restore(
    services: Using, volume_id: InVolume, snapshot_id: OfSnapshot, request: RestoreRequest
) -> RestoreResponse:
    """Make a file, a directory or all of the volume what it was. ``plan`` says before what that would do."""
    body = {"snapshot_id": snapshot_id, "path": request.path, "dry_run": False}
    done = await ask_owner(services, volume_id, "POST", "/v1/snapshots/restore", body)
    return RestoreResponse(**{name: done[name] for name in _COUNTS})


@router.get("/volumes/{volume_id}/snapshot-schedule", dependencies=[may(Role.READER)])
async def show_schedule(services: Using, volume_id: InVolume) -> ScheduleResponse:
    """Say when snapshots are taken and let go."""
    return ScheduleResponse(policy=(await ask_owner(services, volume_id, "GET", "/v1/snapshots/schedule"))["policy"])


@router.put("/volumes/{volume_id}/snapshot-schedule", dependencies=[may(Role.OWNER)])
async def set_schedule(services: Using, volume_id: InVolume, request: SetScheduleRequest) -> ScheduleResponse:
    """Set when snapshots are taken and let go; those that people took stay."""
    body = {"policy": request.policy}
    return ScheduleResponse(
        policy=(await ask_owner(services, volume_id, "PUT", "/v1/snapshots/schedule", body))["policy"]
    )


@router.get("/volumes/{volume_id}/snapshot-limit", dependencies=[may(Role.READER)])
async def show_limit(services: Using, volume_id: InVolume) -> SnapshotLimitResponse:
    """Say what snapshots keep, and may keep."""
    return convert.limit_from_owner(await ask_owner(services, volume_id, "GET", "/v1/snapshots/limit"))


@router.put("/volumes/{volume_id}/snapshot-limit", dependencies=[may(Role.ADMIN)])
async def set_limit(services: Using, volume_id: InVolume, request: SetSnapshotLimitRequest) -> SnapshotLimitResponse:
    """Set what snapshots may keep; it is not the volume's limit."""
    body = {"limit_bytes": request.limit_bytes}
    return convert.limit_from_owner(await ask_owner(services, volume_id, "PUT", "/v1/snapshots/limit", body))


def _by_path(change: ChangeField) -> tuple[Any, ...]:
    return change.path, change.change
