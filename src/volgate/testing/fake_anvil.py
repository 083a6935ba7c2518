"""An Anvil to test against: HTTPS on the loopback, shares are directories that the test bind-mounts.

Faithful to what the vendor's CSI plugin relies on: login by form and cookie, 202 + Location and tasks, numbers as
strings, a 400 for a name that is taken, tombstones of removed shares, names that are refused.

A guess at the product: the wording of messages, a share with a running task answering 404, how long a tombstone stands,
the names of snapshots, that an objective is set at once, that ``extendedInfo`` comes back as it was given, that a
resize takes effect with its task, and that a file's snapshots lie in ``.fsnapshot`` beside it (their paths in the
plugin's tests, ``/SHARE/.fsnapshot/FILE/TIME``, do not tell for a file in a directory).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

_ROOT: Final = "/mgmt/v1.2/rest"
_HANG_S: Final = 20


class FakeAnvil:
    """The state, and what shall go wrong.

    Args:
        place: directory of the shares. certificate: PEM files of the certificate and its key; None = no TLS.

    Attributes:
        visible_after: looks at a share that was made until it is seen. task_looks: looks at a task until it ends.
        task_ends_as: its status then. refusal: the status for a cookie that ran out, 401 or 403.
        objectives: names of those there are.
        fault: what the next matching requests get: a status >= 500, "garbage", "cut" or "hang".
        fault_at: what matching requests begin with, "POST /shares". faults_left: how many.
        requests: all that were asked, "GET /shares/x".
    """

    def __init__(self, place: Path, certificate: tuple[Path, Path] | None) -> None:
        self.place = place
        self.shares: dict[str, dict[str, Any]] = {}
        self.snapshots: dict[str, list[str]] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.cookies: set[str] = set()
        self.visible_after = self.task_looks = self.faults_left = 0
        self.task_ends_as = "COMPLETED"
        self.objectives = ["keep-online", "Place on nodes"]
        self.refusal = 401
        self.fault: int | str = 0
        self.fault_at = ""
        self.requests: list[str] = []
        self._pending: dict[str, list[Any]] = {}
        self.stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.handle_error = lambda request, address: None  # type: ignore[assignment, method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]

    @contextlib.contextmanager
    def running(self) -> Iterator[FakeAnvil]:
        """Serve in a thread until left."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.stopped.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def expire(self) -> None:
        """Have all cookies run out."""
        self.cookies.clear()

    def inject(self, fault: int | str, at: str, times: int = 1) -> None:
        """Have the next requests of a beginning go wrong."""
        self.fault, self.fault_at, self.faults_left = fault, at, times

    def add_share(self, name: str, **fields: Any) -> dict[str, Any]:
        """Make a share at once, by whoever."""
        (self.place / name).mkdir(parents=True, exist_ok=True)
        share = {
            "name": name, "path": f"/{name}", "shareState": "PUBLISHED", "shareSizeLimit": None, "extendedInfo": {},
            "shareObjectives": [],
            "uoid": {"uuid": str(uuid.uuid4()), "objectType": "SHARE"}, "unseen": self.visible_after,
            "space": {"total": "1099511627776", "used": "4096", "available": "1099511623680", "percent": "0"},
        } | fields  # fmt: skip
        self.shares[name] = share
        self.snapshots[name] = []
        return share

    # -- answers ------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> tuple[int, Any, str]:
        """Return status, body and Location."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case "GET", ["tasks"]:
                return 200, list(self.tasks.values()), ""
            case "GET", ["tasks", task]:
                return self._look_at(task)
            case "GET", ["objectives"]:
                return 200, [{"name": name, "uoid": {"objectType": "OBJECTIVE"}} for name in self.objectives], ""
            case "GET", ["cntl", "state"]:
                return 200, {"capacity": {"total": "1099511627776", "free": "549755813888"}}, ""
            case "POST", ["shares", name, "objective-set"] if name in self.shares:
                return self._set_objective(name, query["objective-identifier"][0])
            case "POST", ["shares"]:
                return self._create(json.loads(body))
            case _, ["shares", name]:
                return self._share(method, name, body)
            case "POST", ["share-snapshots", "snapshot-create", name]:
                return self._snapshot(name)
            case "GET", ["share-snapshots", "snapshot-list", name] if name in self.shares:
                return 200, [*self.snapshots[name], "current"], ""
            case "POST", ["share-snapshots", "snapshot-delete", name, snapshot] if snapshot in self.snapshots[name]:
                self.snapshots[name].remove(snapshot)
                shutil.rmtree(self.place / name / ".snapshot" / snapshot)
                return 200, "", ""
            case "POST", ["file-snapshots", "create"]:
                return self._snapshot_file(query["filename-expression"][0])
            case "POST", ["file-snapshots", "delete"]:
                return self._delete_of_file(query["filename-expression"][0], query["date-time-expression"][0])
        return 404, {"message": "not found"}, ""

    def _share(self, method: str, name: str, body: bytes) -> tuple[int, Any, str]:
        share = self.shares.get(name)
        if share is None:
            return 404, {"message": "no such share"}, ""
        if method == "GET":
            share["unseen"] -= 1
            return (404, {}, "") if share["unseen"] >= 0 else (200, share, "")
        if share["shareState"] == "REMOVED":
            return 400, {"message": "Cannot remove a share with state REMOVED."}, ""
        if method == "PUT":
            changed = json.loads(body)
            return self._accept("share-update", name, lambda: share.update(changed))
        return self._accept("share-delete", name, lambda: self._remove(name))

    def _set_objective(self, name: str, objective: str) -> tuple[int, Any, str]:
        if objective not in self.objectives:
            return 400, {"message": f"no objective {objective}"}, ""
        self.shares[name]["shareObjectives"].append({"objective": {"name": objective}, "removable": True})
        return 200, "", ""

    def _remove(self, name: str) -> None:
        self.shares[name]["shareState"] = "REMOVED"
        for child in (self.place / name).iterdir():
            shutil.rmtree(child) if child.is_dir() else child.unlink()

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any, str]:
        name = wanted["name"]
        if len(name) > 80 or re.search(r'["/\\\[\]:|<>+;,?*=]', name):
            return 400, {"message": "illegal share name"}, ""
        making = any(t["paramsMap"]["name"] == name and t["status"] == "EXECUTING" for t in self.tasks.values())
        if making or self.shares.get(name, {}).get("shareState", "REMOVED") != "REMOVED":
            return 400, {"message": f"share {name} exists"}, ""
        return self._accept("share-create", name, lambda: self.add_share(**wanted))

    def _accept(self, kind: str, name: str, act: Any) -> tuple[int, Any, str]:
        task = str(uuid.uuid4())
        self.tasks[task] = {"uuid": task, "name": kind, "status": "EXECUTING", "paramsMap": {"name": name}}
        self._pending[task] = [self.task_looks, act]
        if not self.task_looks:
            self._end(task)
        return 202, "", f"https://127.0.0.1:{self.port}{_ROOT}/tasks/{task}"

    def _end(self, task: str) -> None:
        self.tasks[task]["status"] = self.task_ends_as
        if self.task_ends_as == "COMPLETED":
            self._pending[task][1]()
        else:
            self.tasks[task]["statusMessage"] = "no volume has room"

    def _look_at(self, task: str) -> tuple[int, Any, str]:
        if self.tasks[task]["status"] == "EXECUTING":
            self._pending[task][0] -= 1
            if self._pending[task][0] < 0:
                self._end(task)
        return 200, self.tasks[task], ""

    def _snapshot(self, name: str) -> tuple[int, Any, str]:
        taken = f"{_now()}-{len(self.snapshots[name])}"
        root = self.place / name
        (root / ".snapshot" / taken).mkdir(parents=True)
        names = [child.name for child in root.iterdir() if child.name != ".snapshot"]
        subprocess.run(["cp", "-a", "--", *names, f".snapshot/{taken}"], cwd=root, check=True) if names else None
        shutil.copystat(root, root / ".snapshot" / taken)
        self.snapshots[name].append(taken)
        return 200, taken, ""

    def _snapshot_file(self, expression: str) -> tuple[int, Any, str]:
        """Take a snapshot of each file that the expression names, which may be a pattern."""
        made = []
        for file in sorted(self.place.glob(expression.lstrip("/"))):
            folder = _folder_of(file)
            folder.mkdir(parents=True, exist_ok=True)
            taken = folder / f"{_now()}-0644-{len(list(folder.iterdir()))}"
            subprocess.run(["cp", "-a", "--", file, taken], check=True)
            made.append(f"/{taken.relative_to(self.place)}")
        return (200, made, "") if made else (404, {"message": "no such file"}, "")

    def _delete_of_file(self, path: str, second: str) -> tuple[int, Any, str]:
        """Delete all snapshots of a file that were taken in a second."""
        found = list(_folder_of(self.place / path.lstrip("/")).glob(f"{second}-*"))
        for snapshot in found:
            snapshot.unlink()
        return (200, "", "") if found else (400, {"message": f"No snapshots found for path {path}"}, "")


def _now() -> str:
    """Return the time as names of snapshots have it: "2026-11-25T16-00-00"."""
    return time.strftime("%Y-%m-%dT%H-%M-%S", time.gmtime())


def _folder_of(file: Path) -> Path:
    return file.parent / ".fsnapshot" / file.name


def _handler(anvil: FakeAnvil) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            path = parts.path.removeprefix(_ROOT)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = f"{self.command} {path}"
            anvil.requests.append(asked)
            if anvil.faults_left and asked.startswith(anvil.fault_at):
                anvil.faults_left -= 1
                self._fail()
            elif path == "/login":
                self._login(body)
            elif self.headers.get("Cookie", "") not in anvil.cookies:
                self._reply(anvil.refusal, {"message": "log in"}, "")
            else:
                self._reply(*anvil.answer(self.command, path, parse_qs(parts.query), body))

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server's names

        def _fail(self) -> None:
            if anvil.fault == "hang":
                anvil.stopped.wait(_HANG_S)
            elif anvil.fault == "garbage":
                self._reply(200, "<html>busy</html>", "")
            elif isinstance(anvil.fault, int):
                self._reply(anvil.fault, {"message": "injected"}, "")
            self.close_connection = True

        def _login(self, body: bytes) -> None:
            form = parse_qs(body.decode())
            if form.get("username") != ["admin"] or form.get("password") != ["secret"]:
                return self._reply(401, {"message": "bad login"}, "")
            cookie = f"JSESSIONID={uuid.uuid4().hex}"
            anvil.cookies.add(cookie)
            return self._reply(200, {}, "", cookie)

        def _reply(self, status: int, body: Any, location: str, cookie: str = "") -> None:
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if location:
                self.send_header("Location", location)
            if cookie:
                self.send_header("Set-Cookie", f"{cookie}; Path=/; Secure; HttpOnly")
            self.end_headers()
            self.wfile.write(content)

    return Handler
