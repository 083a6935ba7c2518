"""What an Anvil is asked to do: shares, their limits and snapshots, and the tasks that do it.

A share that the gateway made carries a mark in its ``extendedInfo``. Only a share with the volume's own mark is
resized, gone on with, or removed; every other one is refused, so nobody's data is taken over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import attrs
import trio

from volgate.drivers.hammerspace.http import Answer, ask, tls_context
from volgate.drivers.hammerspace.settings import HammerspaceSettings, read_login
from volgate.errors import (
    AlreadyExists,
    InputOutput,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    TimedOut,
    Unavailable,
)

ROOT: Final = "/mgmt/v1.2/rest"
MARK: Final = "volgate.volume"
_DONE: Final = "COMPLETED"
_ENDED: Final = frozenset({"FAILED", "VALIDATION_FAILED", "HALTED", "CANCELLED", "RESUMED"})
"""A task in one of these gets no further; what was RESUMED goes on as another task, which nobody knows of here."""
_GONE: Final = frozenset({"REMOVED", "RECLAIMING"})
_PATTERN: Final = frozenset("*?[]{}\\")
"""What may make a path a pattern, which the Anvil takes instead of a path (``file-snapshot-create --filename``)."""


@attrs.frozen
class ShareState:
    """What an Anvil says of a share.

    Attributes:
        volume_id: of the volume it was made for, "" where volgate did not make it.
        limit_bytes: None = unlimited. size_bytes, used_bytes: as the Anvil counts, None where it does not say.
        objectives: names of those that hold for it.
    """

    volume_id: str
    limit_bytes: int | None
    size_bytes: int | None
    used_bytes: int | None
    objectives: tuple[str, ...]


class Anvil:
    """The control calls of one share.

    Args:
        settings: which share. timeout_s: of one request. deadline_s: of a change, with its task and until it is
            seen. poll_s: between two looks at a task.
    """

    def __init__(
        self, settings: HammerspaceSettings, *, timeout_s: float = 30, deadline_s: float = 300, poll_s: float = 1
    ) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._deadline_s = deadline_s
        self._poll_s = poll_s
        self._tls = tls_context(settings)
        self._cookie = ""
        self._share_path = f"/shares/{quote(settings.share, safe='')}"
        self._task_status = ""

    # -- requests -----------------------------------------------------------------------------------------------

    async def _send(self, method: str, path: str, body: Any = None) -> Answer:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Cookie": self._cookie}
        return await ask(self._settings, self._tls, method, ROOT + path, headers, content, self._timeout_s)

    async def _login(self) -> None:
        login = read_login(self._settings.credentials_file)
        form = urlencode({"username": login.username, "password": login.password}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await ask(self._settings, self._tls, "POST", f"{ROOT}/login", headers, form, self._timeout_s)
        if answer.status in (400, 401, 403):
            raise PermissionDenied(
                f"the Anvil {self._settings.host} refuses the login of {login.username}; "
                f"correct {self._settings.credentials_file}"
            )
        self._check(answer, "the login")
        self._cookie = "; ".join(
            value.decode("latin-1").partition(";")[0] for name, value in answer.headers if name == b"set-cookie"
        )

    async def _ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Send a request, logged in; once more after a new login where the old one has run out."""
        fresh = not self._cookie
        if fresh:
            await self._login()
        answer = await self._send(method, path, body)
        if answer.status in (401, 403) and not fresh:
            await self._login()
            answer = await self._send(method, path, body)
        if answer.status in (401, 403):
            self._cookie = ""
            raise PermissionDenied(f"the Anvil's user may not {method} {path}; give it the right to manage shares")
        return answer

    def _check(self, answer: Answer, what: str) -> Answer:
        if answer.status >= 500:
            raise Unavailable(f"the Anvil {self._settings.host} failed at {what} (HTTP {answer.status}); try again")
        if answer.status == 404:
            raise NotFound(f"the Anvil knows no such thing: {what}")
        if answer.status >= 300:
            raise InvalidArgument(f"the Anvil refuses {what} (HTTP {answer.status}): {_line(answer.body)}")
        return answer

    def _parse(self, answer: Answer, what: str, kind: type[Any]) -> Any:
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise InputOutput(f"the Anvil's answer to {what} is no JSON: {_line(answer.body)}") from error
        if not isinstance(found, kind):
            raise InputOutput(f"the Anvil's answer to {what} has another form than expected: {_line(answer.body)}")
        return found

    async def _finish(self, answer: Answer, what: str) -> None:
        """Wait for the task of an accepted change. Raises InputOutput where the task fails."""
        place = urlsplit(answer.header(b"location")).path
        if answer.status != 202 or "/tasks/" not in place:
            return
        path = f"/tasks/{quote(place.rpartition('/tasks/')[2], safe='')}"
        while True:
            task = self._parse(self._check(await self._ask("GET", path), what), what, dict)
            if task.get("status") == _DONE:
                return
            self._task_status = str(task.get("status"))
            if self._task_status in _ENDED:
                said = task.get("statusMessage") or task.get("exitValue") or "no reason given"
                raise InputOutput(f"the Anvil's task for {what} ended as {self._task_status}: {said}")
            await trio.sleep(self._poll_s)

    @contextlib.contextmanager
    def _deadline(self, message: str) -> Iterator[None]:
        """Bound a change; where it takes too long, say so, and how far its task was."""
        self._task_status = ""
        with trio.move_on_after(self._deadline_s) as limit:
            yield
        if limit.cancelled_caught:
            raise TimedOut(message + (f" (its task is {self._task_status})" if self._task_status else ""))

    # -- shares -------------------------------------------------------------------------------------------------

    async def find_share(self) -> dict[str, Any] | None:
        """Return the share as the Anvil has it, None where there is none, or one that is being forgotten."""
        answer = await self._ask("GET", self._share_path)
        if answer.status == 404:
            return None
        share: dict[str, Any] = self._parse(self._check(answer, "the share"), "the share", dict)
        return None if share.get("shareState") in _GONE else share

    def _is_ours(self, share: dict[str, Any], volume_id: str) -> bool:
        return isinstance(info := share.get("extendedInfo"), dict) and info.get(MARK) == volume_id

    async def create_share(self, volume_id: str) -> None:
        """Make the share, or go on with a creation of ours that broke off; returns once it is seen.

        Raises:
            AlreadyExists: another's share has the name. TimedOut: not seen by the deadline; a second call goes on.
        """
        name = self._settings.share
        with self._deadline(f"the share {name} was asked for, but is not seen yet; try again later"):
            await self._check_objectives()
            share = await self.find_share()
            if share is None:
                await self._post_share(volume_id)
                share = await self._wait_share()
            if not self._is_ours(share, volume_id):
                raise AlreadyExists(f"the share {name} exists and is not this volume's; choose another name")
            for objective in self._settings.objectives:
                if objective not in _objectives_of(share):
                    await self._set_objective(objective)

    async def _check_objectives(self) -> None:
        """Raise InvalidArgument where one is wanted that the Anvil does not have, before anything is made."""
        if not self._settings.objectives:
            return
        found = self._parse(
            self._check(await self._ask("GET", "/objectives"), "the objectives"), "the objectives", list
        )
        known = sorted(objective["name"] for objective in found if isinstance(objective, dict) and "name" in objective)
        for name in self._settings.objectives:
            if name not in known:
                raise InvalidArgument(f"the Anvil has no objective {name!r}; it has {', '.join(known) or 'none'}")

    async def _set_objective(self, name: str) -> None:
        what = f"setting the objective {name}"
        query = urlencode({"path": "/", "objective-identifier": name})
        answer = await self._ask("POST", f"{self._share_path}/objective-set?{query}")
        await self._finish(self._check(answer, what), what)

    async def _post_share(self, volume_id: str) -> None:
        name = self._settings.share
        wanted = {"name": name, "path": f"/{name}", "comment": "a volume of volgate", "extendedInfo": {MARK: volume_id}}
        answer = await self._ask("POST", "/shares?create-path=true&validate-only=false", wanted)
        if answer.status != 400:
            await self._finish(self._check(answer, f"making the share {name}"), f"making the share {name}")
        elif await self.find_share() is None and not await self._is_being_made():
            self._check(answer, f"making the share {name}")

    async def _is_being_made(self) -> bool:
        """Return whether a task makes a share of the name: a call before this one broke off, or another is at it."""
        tasks = self._parse(self._check(await self._ask("GET", "/tasks"), "the tasks"), "the tasks", list)
        return any(
            task.get("name") == "share-create"
            and (task.get("paramsMap") or {}).get("name") == self._settings.share
            and task.get("status") not in {_DONE, *_ENDED}
            for task in tasks
            if isinstance(task, dict)
        )

    async def _wait_share(self) -> dict[str, Any]:
        while (share := await self.find_share()) is None:  # noqa: ASYNC110 - the Anvil tells nobody
            await trio.sleep(self._poll_s)
        return share

    async def _own_share(self, volume_id: str | None) -> dict[str, Any]:
        share, name = await self.find_share(), self._settings.share
        if share is None:
            raise NotFound(f"the Anvil has no share {name}; 'volgate volume create' makes it")
        info = share.get("extendedInfo")
        marked = info.get(MARK) if isinstance(info, dict) else None
        if not marked or (volume_id is not None and marked != volume_id):
            raise PermissionDenied(f"the share {name} was not made for this volume; it is left as it is")
        return share

    async def read_limit(self) -> int | None:
        """Return the share's limit in bytes, None = unlimited. Raises NotFound."""
        return _number((await self._own_share(None)).get("shareSizeLimit"))

    async def resize_share(self, limit_bytes: int | None) -> None:
        """Set the share's limit in bytes; None = unlimited. Raises NotFound, PermissionDenied: not made by volgate."""
        what = f"the limit of the share {self._settings.share}"
        with self._deadline(f"{what}: the Anvil is not done with it"):
            share = await self._own_share(None)
            limit = None if limit_bytes is None else str(limit_bytes)
            if _number(share.get("shareSizeLimit")) == limit_bytes:
                return
            answer = await self._ask("PUT", self._share_path, {**share, "shareSizeLimit": limit})
            await self._finish(self._check(answer, what), what)

    async def delete_share(self, volume_id: str) -> None:
        """Remove the share with all that is in it; nothing happens where there is none. Raises PermissionDenied."""
        what = f"removing the share {self._settings.share}"
        with self._deadline(f"{what}: the Anvil is not done with it; try again later"):
            if await self.find_share() is None:
                return
            await self._own_share(volume_id)
            answer = await self._ask("DELETE", f"{self._share_path}?delete-path=true&delete-delay=0")
            if answer.status == 404 or (answer.status == 400 and b"REMOVED" in answer.body):
                return
            await self._finish(self._check(answer, what), what)

    async def read_free_bytes(self) -> int | None:
        """Return how much is free in the cluster; None where it does not say."""
        what = "the cluster's capacity"
        state = self._parse(self._check(await self._ask("GET", "/cntl/state"), what), what, dict)
        capacity = state.get("capacity")
        return _number(capacity.get("free")) if isinstance(capacity, dict) else None

    async def describe_share(self) -> ShareState:
        """Return what the Anvil says of the share. Raises NotFound."""
        share = await self.find_share()
        if share is None:
            raise NotFound(f"the Anvil has no share {self._settings.share}; 'volgate volume create' makes it")
        info, space = share.get("extendedInfo"), share.get("space")
        return ShareState(
            str(info.get(MARK) or "") if isinstance(info, dict) else "",
            _number(share.get("shareSizeLimit")),
            _number(space.get("total")) if isinstance(space, dict) else None,
            _number(space.get("used")) if isinstance(space, dict) else None,
            tuple(_objectives_of(share)),
        )

    # -- snapshots of the share -----------------------------------------------------------------------------------

    def _snapshots(self, verb: str, *rest: str) -> str:
        parts = [verb, self._settings.share, *rest]
        return "/share-snapshots/" + "/".join(quote(part, safe="") for part in parts)

    async def create_snapshot(self) -> str:
        """Take a snapshot of the share and return the name that the Anvil gave it."""
        what = "a snapshot of the share"
        answer = self._check(await self._ask("POST", self._snapshots("snapshot-create")), what)
        name = answer.body.decode("utf-8", "replace").strip().strip('"')
        if not name or "/" in name or "\n" in name:
            raise InputOutput(f"the Anvil's answer to {what} is no name: {_line(answer.body)}")
        return name

    async def list_snapshots(self) -> list[str]:
        """Return the names of the share's snapshots; "current", which is none, is left out."""
        what = "the snapshots of the share"
        names = self._parse(self._check(await self._ask("GET", self._snapshots("snapshot-list")), what), what, list)
        return [name for name in names if isinstance(name, str) and name != "current"]

    async def delete_snapshot(self, name: str) -> None:
        """Delete a snapshot by the Anvil's name. Raises NotFound."""
        self._check(await self._ask("POST", self._snapshots("snapshot-delete", name)), f"the snapshot {name}")

    # -- snapshots of one file --------------------------------------------------------------------------------------

    async def create_file_snapshot(self, path: str) -> str:
        """Take a snapshot of one file and return where it lies. Both paths are relative to the share.

        Raises InvalidArgument: the Anvil would take the path for a pattern, and snapshots of several files.
        """
        if found := sorted(set(path) & _PATTERN):
            raise InvalidArgument(f"the Anvil takes a path with {found[0]} for a pattern; take one of the whole volume")
        what, share = f"a snapshot of the file {path}", f"/{self._settings.share}/"
        query = urlencode({"filename-expression": share + path})
        answer = self._check(await self._ask("POST", f"/file-snapshots/create?{query}"), what)
        made = self._parse(answer, what, list)
        if len(made) != 1 or not isinstance(made[0], str) or not made[0].startswith(share):
            raise InputOutput(f"the Anvil's answer to {what} names no file of the share: {_line(answer.body)}")
        return made[0].removeprefix(share)

    async def delete_file_snapshot(self, path: str, made: str) -> None:
        """Delete the snapshots of a file that were taken in the same second as one. Raises NotFound: there is none."""
        what = f"the snapshot {made}"
        second = "-".join(made.rpartition("/")[2].split("-", 5)[:5])
        query = urlencode({"filename-expression": f"/{self._settings.share}/{path}", "date-time-expression": second})
        answer = await self._ask("POST", f"/file-snapshots/delete?{query}")
        if answer.status == 400 and b"No snapshots found" in answer.body:
            raise NotFound(f"the Anvil knows no such thing: {what}")
        self._check(answer, what)


def _objectives_of(share: dict[str, Any]) -> list[str]:
    """Return the names of a share's objectives."""
    found = share.get("shareObjectives") or []
    names = [entry.get("objective", {}).get("name") for entry in found if isinstance(entry, dict)]
    return [name for name in names if isinstance(name, str)]


def _number(value: Any) -> int | None:
    """Return a number that may come as a string."""
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError) as error:
        raise InputOutput(f"the Anvil gives '{value}' where a number belongs") from error


def _line(body: bytes) -> str:
    return " ".join(body[:200].decode("utf-8", "replace").split()) or "(empty)"
