"""The description of the API against a real daemon: whatever fits it, and much that does not, is answered as it says.

The daemon runs in a root directory of its own (an overlay, gone afterwards): it makes volumes wherever it is told to.
"""

import os
import socket
import sys

import pytest
import requests
import schemathesis
import urllib3
from hypothesis import HealthCheck, settings
from requests.adapters import HTTPAdapter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from controlling import started
from volgate.control.app import make_app

NAME = "fuzzed"
SERVICE_UNAVAILABLE, INSUFFICIENT_STORAGE = 503, 507
IN_A_BOX = """
set -eu
mount --make-rprivate /
box=$(mktemp -d); mount -t tmpfs box "$box"
mkdir "$box/upper" "$box/work" "$box/root"
mount -t overlay box -o "lowerdir=/,upperdir=$box/upper,workdir=$box/work" "$box/root"
mount -t proc proc "$box/root/proc"
mount --rbind /dev "$box/root/dev"
mount -t tmpfs run "$box/root/run"
mkdir -p "$box/root/$1"; mount --bind "$1" "$box/root/$1"
rm -rf "$box/root/var/lib/volgate"
cd "$box/root"
exec chroot . "$2" -m volgate control serve
"""
SCHEMA = schemathesis.openapi.from_dict(make_app(None).openapi()).exclude(path="/v1/events/stream")  # which never ends


class UnixAdapter(HTTPAdapter):
    """Sends requests to a unix socket."""

    def __init__(self, path):
        super().__init__()
        self._path = path

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        path = self._path

        class Connection(urllib3.connection.HTTPConnection):
            def connect(self):
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.settimeout(60)
                self.sock.connect(str(path))

        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection

        return Pool("localhost", timeout=60)


@pytest.fixture(scope="module")
def boxed(module_place):
    """Return a control daemon in a root directory of its own."""
    command = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "bash",
        "-c",
        IN_A_BOX,
        "bash",
        str(module_place),
        sys.executable,
    ]
    with started(module_place / "control.sock", command) as api:
        yield api


@pytest.fixture
def session(boxed):
    """Return what asks that daemon, which has a mounted volume with a snapshot."""
    source = f"{boxed.path.parent}/data"
    boxed.ask("POST", "/v1/volumes", {"volume_id": NAME, "source": source, "mount_point": "/mnt/fuzzed"})
    boxed.ok("PATCH", f"/v1/volumes/{NAME}", {"mount_point": "/mnt/fuzzed", "options": ""})
    boxed.ok("POST", f"/v1/volumes/{NAME}/mount")
    boxed.ok("PUT", f"/v1/volumes/{NAME}/snapshot-limit", {"limit_bytes": None})
    boxed.ask("POST", f"/v1/volumes/{NAME}/snapshots", {"snapshot_id": "one"})
    with requests.Session() as session:
        session.mount("http://", UnixAdapter(boxed.path))
        session.headers["Connection"] = "close"
        yield session


def expected(ctx, response, case):
    """Fail at a 5xx, but for 503 of a volume that is not ready, which is what is asked for there, and 507."""
    if response.status_code == SERVICE_UNAVAILABLE and case.path.endswith("/ready"):
        assert response.json()["code"] == "not_ready"
        return None
    if response.status_code == INSUFFICIENT_STORAGE:
        assert response.json()["code"] == "quota_exceeded"  # a limit was set on the way
        return None
    return not_a_server_error(ctx, response, case)


CHECKS = [
    expected,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@SCHEMA.parametrize()
@settings(
    max_examples=int(os.environ.get("VOLGATE_FUZZ", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
def test_every_answer_is_as_described(case, session):
    for key, real in (("volume_id", NAME), ("snapshot_id", "one")):
        if len(case.path_parameters.get(key) or "") % 2:  # one half meets what there is
            case.path_parameters[key] = real
    if case.method == "DELETE" and case.path == "/v1/volumes/{volume_id}":
        case.path_parameters["volume_id"] = "gone"
    if isinstance(case.body, dict) and str(case.body.get("source", "")).startswith("/"):
        case.body["source"] = f"/srv{case.body['source']}"  # else a volume at / would hold all others
    case.call_and_validate(base_url="http://localhost", session=session, checks=CHECKS)
