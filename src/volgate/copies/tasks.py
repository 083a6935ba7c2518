"""A volume's tasks: kept beside its data, run in its owner, taken up again by the next owner.

One reserved file has all of them; it is written when a task begins, comes to another stage, and ends. How far a task is
in between is found by comparing its source with what is there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, get_args

import attrs
import trio

from volgate.copies.pacing import Pacer, Progress
from volgate.copies.request import CopyRequest, describe, name_source, to_request
from volgate.copies.source import opened_source
from volgate.copies.tree_copy import COUNTS, CopyReport, Stage, TreeCopy
from volgate.dto import AsyncCopyContext
from volgate.errors import (
    Busy,
    InvalidArgument,
    NotFound,
    ReadOnly,
    ShuttingDown,
    StorageException,
    Unavailable,
    Unsupported,
)
from volgate.errors.errno_map import errno_name, to_errno
from volgate.vfs.file_system import FileSystem
from volgate.volume.snapshots.base import Place

log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1
_FILE: Final = "tasks.json"
_KEPT: Final = 100
"""How many that have ended are remembered."""
_AT_ONCE: Final = 8
_FIRST_DELAY_S: Final = 1.0
_LAST_DELAY_S: Final = 60.0

State = Literal["waiting", "running", "paused", "cancelling", "done", "failed", "cancelled"]
ENDED: Final = frozenset({"done", "failed", "cancelled"})


@attrs.define
class Task:
    """A copy or sync, and how it stands.

    Attributes:
        operation_id: unique. request: what was asked for.
        state: "waiting" for others to end, or for storage that does not answer.
        stage, source_ino: see ``tree_copy.Stage``.
        created_at, ended_at: UNIX seconds; ended_at 0 = not yet.
        error, error_code: why it failed, or what it waits for; an errno's name.
        report: what it did. total_bytes, total_files: as they were when it ended.
    """

    operation_id: str
    request: CopyRequest
    state: State = "waiting"
    stage: str = "new"
    source_ino: int = 0
    created_at: float = attrs.field(factory=time.time)
    ended_at: float = 0.0
    error: str = ""
    error_code: str = ""
    report: CopyReport = attrs.field(factory=CopyReport)
    total_bytes: int = 0
    total_files: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


class _Run:
    """A task under way in this process."""

    def __init__(self, task: Task) -> None:
        self.progress = Progress()
        self.pacer = Pacer(self.progress, task.request.bytes_per_s)
        self.scope = trio.CancelScope()
        self.is_cancelled = False
        self.is_parked = False
        self.counts = dict.fromkeys(COUNTS, 0)
        """What it did in this process, in all its tries."""
        if task.state == "paused":
            self.pacer.pause()


class Tasks:
    """The tasks of one volume.

    Args:
        drop_caches: has the kernel forget names, each with its directory's number.
        flush: asks the owner of a volume's id to store what was written, where there is one.
        own_text: where the volume's data lies.
        under_way: names work for as long as it runs; raises ShuttingDown where the process is about to end.
    """

    def __init__(
        self,
        file_system: FileSystem,
        drop_caches: Callable[[Collection[tuple[int, bytes]]], Awaitable[None]],
        flush: Callable[[str], Awaitable[None]],
        under_way: Callable[[str], AbstractContextManager[None]],
        own_text: str,
    ) -> None:
        self._fs = file_system
        self._backend = file_system.volume.backend
        self._drop_caches = drop_caches
        self._flush = flush
        self._under_way = under_way
        self._own_text = own_text
        self._tasks: dict[str, Task] = {}
        self._runs: dict[str, _Run] = {}
        self._send, self._receive = trio.open_memory_channel[str](float("inf"))
        self._changed = trio.Event()
        self._writing = trio.Lock()
        self._places = trio.CapacityLimiter(_AT_ONCE)

    # -- what is kept -------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the tasks, and hide what is there of copies that were cut off. Before anybody looks at the volume.

        Raises:
            Unsupported: a newer version wrote them.
        """
        try:
            content = await self._backend.load_reserved(_FILE)
        except Unsupported:
            return
        except Unavailable:
            raise
        except StorageException:
            log.exception("what is noted of the volume's tasks cannot be read; they are forgotten")
            return
        try:
            found = json.loads(content or b"null") or {"format": FORMAT_VERSION, "tasks": []}
            version = int(found["format"])
            if version > FORMAT_VERSION:
                raise Unsupported(
                    f"the volume's tasks have format {version}, this version knows {FORMAT_VERSION}: upgrade"
                )
            self._tasks = {task.operation_id: task for task in map(_to_task, found["tasks"])}
        except (Unsupported, Unavailable):
            raise
        except Exception:  # whatever somebody wrote there: the volume is served all the same
            log.exception("what is noted of the volume's tasks is damaged; they are forgotten")
            return
        for task in self._tasks.values():
            if not task.has_ended and not self._fs.read_only:
                self._start(task)
                await self._make_copy(task, self._runs[task.operation_id], self._own_place(), "").hide()
                if task.state != "paused":
                    facts = {"event": "task.goes_on", "task": task.operation_id, **_facts(task)}
                    log.info("a task that was cut off goes on", extra=facts)

    async def _keep(self) -> None:
        async with self._writing:
            ended = [task.operation_id for task in self._tasks.values() if task.has_ended]
            for operation_id in ended[: max(0, len(ended) - _KEPT)]:
                del self._tasks[operation_id]
            found = {"format": FORMAT_VERSION, "tasks": [_to_record(task) for task in self._tasks.values()]}
            await self._backend.store_reserved(_FILE, json.dumps(found).encode())

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -- what people do -----------------------------------------------------------------------------------------

    async def submit(self, request: CopyRequest) -> dict[str, Any]:
        """Take a task on, durably, and return it as ``show`` does."""
        if self._fs.read_only:
            raise ReadOnly("the volume is mounted read-only")
        task = Task(secrets.token_hex(8), request)
        self._tasks[task.operation_id] = task
        try:
            await self._keep()
        except BaseException:
            del self._tasks[task.operation_id]
            raise
        self._start(task)
        log.info("a task was taken on", extra={"event": "task.taken_on", "task": task.operation_id, **_facts(task)})
        return self.show(task.operation_id)

    async def plan(self, request: CopyRequest) -> list[dict[str, Any]]:
        """Return what a sync would change. Raises as the sync."""
        if request.kind != "sync":
            raise InvalidArgument("only a sync can be tried: a copy makes everything that the source has")
        task = Task("plan", request)
        await self._flush_source(task)
        async with opened_source(request, self._fs, self._own_text) as (source, path):
            copy = self._make_copy(task, _Run(task), source, path)
            return [
                {"path": _printable(change.path) or ".", "change": change.undone, "what": list(change.what)}
                for change in await copy.plan()
            ]

    def show(self, operation_id: str) -> dict[str, Any]:
        """Return a task for JSON. Raises NotFound."""
        task, run = self._find(operation_id), self._runs.get(operation_id)
        progress = run.progress if run is not None else None
        done_bytes, done_files = (task.total_bytes, task.total_files) if task.state == "done" else (0, 0)
        return {
            **_to_record(task),
            "source": name_source(task.request),
            "target": task.request.target_path or ".",
            "total_bytes": progress.total_bytes if progress else task.total_bytes,
            "total_files": progress.total_files if progress else task.total_files,
            "done_bytes": progress.done_bytes if progress else done_bytes,
            "done_files": progress.done_files if progress else done_files,
            "bytes_per_s": progress.bytes_per_s if progress else None,
            "remaining_s": progress.remaining_s if progress else None,
            "path": _printable(os.fsencode(progress.path)) if progress else "",
        }

    def list_all(self) -> list[dict[str, Any]]:
        """Return all tasks, the oldest first."""
        return [self.show(operation_id) for operation_id in self._tasks]

    async def wait(self, operation_id: str) -> dict[str, Any]:
        """Return a task once it has ended. Raises NotFound."""
        while not self._find(operation_id).has_ended:
            await self._changed.wait()
        return self.show(operation_id)

    async def pause(self, operation_id: str) -> dict[str, Any]:
        """Hold a task, until ``resume``, also over restarts. Raises NotFound, Busy: it has ended, or just ends."""
        task = self._find_unended(operation_id)
        if task.state == "cancelling":
            raise Busy(f"the task {operation_id} is being cancelled")
        task.state = "paused"
        self._runs[operation_id].pacer.pause()
        self._park(self._runs[operation_id], parked=True)
        await self._keep()
        return self.show(operation_id)

    async def resume(self, operation_id: str) -> dict[str, Any]:
        """Let a task go on that was paused. Raises NotFound, Busy: it has ended."""
        task = self._find_unended(operation_id)
        if task.state == "paused":
            task.state = "waiting" if task.error else "running"
            self._runs[operation_id].pacer.go_on()
            self._park(self._runs[operation_id], parked=False)
            await self._keep()
        return self.show(operation_id)

    async def cancel(self, operation_id: str) -> dict[str, Any]:
        """End a task and remove what is there of a copy; a sync leaves what it did. Raises NotFound, Busy."""
        task = self._find_unended(operation_id)
        task.state = "cancelling"
        await self._keep()
        run = self._runs[operation_id]
        run.is_cancelled = True
        run.scope.cancel()
        return await self.wait(operation_id)

    def _park(self, run: _Run, *, parked: bool) -> None:
        """Let what is paused take no other task's place."""
        self._places.total_tokens += parked - run.is_parked
        run.is_parked = parked

    def _find(self, operation_id: str) -> Task:
        task = self._tasks.get(operation_id)
        if task is None:
            raise NotFound(f"the volume has no task {operation_id}")
        return task

    def _find_unended(self, operation_id: str) -> Task:
        task = self._find(operation_id)
        if task.has_ended:
            raise Busy(f"the task {operation_id} has ended already: {task.state}")
        return task

    # -- running ------------------------------------------------------------------------------------------------

    def _start(self, task: Task) -> None:
        self._runs[task.operation_id] = _Run(task)
        self._send.send_nowait(task.operation_id)

    async def run(self) -> None:
        """Run what was not ended, and what comes, until cancelled; a task that this cuts off goes on the next time."""
        async with trio.open_nursery() as nursery:
            async for operation_id in self._receive:
                nursery.start_soon(self._run_one, self._tasks[operation_id])

    async def _run_one(self, task: Task) -> None:
        run = self._runs[task.operation_id]
        with run.scope, contextlib.suppress(ShuttingDown):
            if task.state == "cancelling":
                run.is_cancelled = True
            else:
                with self._under_way(f"{task.request.kind} of {name_source(task.request)}"):
                    await self._run_patiently(task, run)
        if run.is_cancelled and not task.has_ended:
            await self._discard(task, run)
            self._end(task, "cancelled", "", "")
        elif not task.has_ended:
            return  # the process ends
        task.total_bytes, task.total_files = run.progress.total_bytes, run.progress.total_files
        with trio.CancelScope(shield=True):
            try:
                await self._keep()
            except StorageException:
                log.exception("what became of a task could not be noted", extra={"task": task.operation_id})
        self._park(run, parked=False)
        del self._runs[task.operation_id]
        self._tell()
        facts = {"task": task.operation_id, "state": task.state, "error": task.error}
        log.info("a task has ended", extra={"event": "task.ended", **facts})

    async def _run_patiently(self, task: Task, run: _Run) -> None:
        """Run a task to its end; storage that does not answer is waited for, and holds up no other task."""
        delay_s = _FIRST_DELAY_S
        while not task.has_ended:
            await run.pacer.wait()
            try:
                async with self._places:
                    if run.pacer.is_paused:  # while others had the places
                        continue
                    task.state, task.error, task.error_code = "running", "", ""
                    task.report = await self._copy(task, run)
            except StorageException as error:
                code = errno_name(to_errno(error))
                if not error.retryable:
                    await self._fail(task, run, str(error), code)
                    return
                if not run.pacer.is_paused and not run.is_cancelled:
                    task.state = "waiting"
                task.error, task.error_code = str(error), code
                facts = {"task": task.operation_id, "error": str(error)}
                log.warning("a task waits for storage", extra={"event": "task.waits", **facts})
                await trio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LAST_DELAY_S)
            except Exception:  # no task ends the daemon
                log.exception("a task failed in a way nobody foresaw", extra={"task": task.operation_id})
                await self._fail(task, run, "internal error; see the daemon's log", "EIO")
            else:
                self._end(task, "done", "", "")

    async def _fail(self, task: Task, run: _Run, error: str, code: str) -> None:
        await self._discard(task, run)
        self._end(task, "failed", error, code)

    def _end(self, task: Task, state: State, error: str, code: str) -> None:
        task.state, task.error, task.error_code, task.ended_at = state, error, code, time.time()

    async def _copy(self, task: Task, run: _Run) -> CopyReport:
        await self._flush_source(task)
        async with opened_source(task.request, self._fs, self._own_text) as (source, path):
            copy = self._make_copy(task, run, source, path)
            try:
                return await copy.run()
            finally:
                with trio.CancelScope(shield=True):
                    await self._drop_caches(copy.touched)

    async def _flush_source(self, task: Task) -> None:
        if task.request.source_volume and task.request.source_text:
            await self._flush(task.request.source_volume)

    async def _discard(self, task: Task, run: _Run) -> None:
        if task.request.kind != "copy" or task.stage == "new":
            return
        copy = self._make_copy(task, run, self._own_place(), "")
        try:
            await copy.discard()
        except StorageException:
            log.exception("what is left of a copy could not be removed", extra={"task": task.operation_id})

    def _make_copy(self, task: Task, run: _Run, source: Place, path: str) -> TreeCopy:
        request = task.request
        context = AsyncCopyContext(
            task.operation_id, source.backend, self._backend, path or ".", request.target_path or ".",
            run.progress.total_bytes, task.created_at,
        )  # fmt: skip

        async def keep(stage: str, source_ino: int) -> None:
            task.stage, task.source_ino = stage, source_ino
            await self._keep()

        return TreeCopy(
            self._fs, context, source, request, run.progress, run.pacer,
            Stage(task.stage, task.source_ino, keep), run.counts,
        )  # fmt: skip

    def _own_place(self) -> Place:
        return Place(self._backend, self._fs.volume.root)


def _printable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _facts(task: Task) -> dict[str, Any]:
    return {"kind": task.request.kind, "source": name_source(task.request), "target": task.request.target_path}


def _to_record(task: Task) -> dict[str, Any]:
    found = attrs.asdict(task, recurse=False)
    return {**found, "request": describe(task.request), "report": attrs.asdict(task.report)}


def _to_task(found: dict[str, Any]) -> Task:
    report = {**found["report"], "losses": tuple(found["report"]["losses"])}
    if not re.fullmatch(r"[0-9a-f]{16}", found["operation_id"]) or found["state"] not in get_args(State):
        raise InvalidArgument("it is no task")
    return Task(**{**found, "request": to_request(found["request"]), "report": CopyReport(**report)})
