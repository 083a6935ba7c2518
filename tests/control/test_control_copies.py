"""Copies, tasks and events by the API: a real daemon, real mounts."""

import contextlib
import http.client
import json
import os
import time

import pytest
from trees import Garden, describe

import mounting
from controlling import UnixConnection


@pytest.fixture
def volumes(api, place):
    """Return two mounted volumes, and where they are mounted."""
    found = {}
    with contextlib.ExitStack() as stack:
        for name in ("copy-from", "copy-into"):
            (place / name).mkdir()
            mnt = place / f"{name}-mnt"
            body = {"volume_id": name, "source": str(place / name), "mount_point": str(mnt)}
            api.ok("POST", "/v1/volumes", body)
            stack.callback(api.ask, "DELETE", f"/v1/volumes/{name}")
            api.ok("POST", f"/v1/volumes/{name}/mount")
            stack.callback(api.ask, "POST", f"/v1/volumes/{name}/unmount", {"lazy": True})
            found[name] = mnt
        yield found


def wait(api, task):
    limit = time.monotonic() + 60
    while task["state"] not in ("done", "failed", "cancelled"):
        assert time.monotonic() < limit, task
        time.sleep(0.05)
        task = api.ok("GET", f"/v1/volumes/copy-into/tasks/{task['operation_id']}")
    return task


def test_a_tree_is_copied_synced_and_told_of(api, volumes, place):
    garden = Garden(volumes["copy-from"] / "tree", 4)
    garden.grow(60)
    request = {"source": {"volume_id": "copy-from", "path": "tree"}, "target_path": "tree"}
    task = wait(api, api.ok("POST", "/v1/volumes/copy-into/copies", request))
    assert (task["state"], task["error"], task["kind"]) == ("done", "", "copy")
    assert task["done_files"] == task["total_files"] > 10 and task["ended_at"] >= task["created_at"]
    assert describe(volumes["copy-into"] / "tree") == describe(garden.path)
    garden.change(20)
    (volumes["copy-into"] / "tree/more").write_text("more")
    sync = {**request, "kind": "sync", "delete": True}
    plan = api.ok("POST", "/v1/volumes/copy-into/copies/plan?limit=2", sync)
    assert len(plan["items"]) == 2 and plan["next_cursor"]
    rest = api.ok("POST", f"/v1/volumes/copy-into/copies/plan?limit=1000&cursor={plan['next_cursor']}", sync)
    assert rest["next_cursor"] is None
    assert {"path": "more", "change": "removed", "what": []} in plan["items"] + rest["items"]
    task = wait(api, api.ok("POST", "/v1/volumes/copy-into/copies", sync))
    assert task["state"] == "done" and task["report"]["removed"] >= 1
    assert describe(volumes["copy-into"] / "tree") == describe(garden.path)
    tasks = api.all_items("/v1/volumes/copy-into/tasks", 1)
    assert [found["kind"] for found in tasks] == ["copy", "sync"]
    api.ok("POST", "/v1/volumes/copy-from/snapshots", {"snapshot_id": "s1"})
    of_snapshot = {"source": {"volume_id": "copy-from", "snapshot_id": "s1", "path": "tree"}, "target_path": "old"}
    assert wait(api, api.ok("POST", "/v1/volumes/copy-into/copies", of_snapshot))["state"] == "done"
    assert describe(volumes["copy-into"] / "old") == describe(garden.path)
    outside = {"source": {"source": str(place / "copy-from-mnt/tree")}, "target_path": "outside"}
    assert wait(api, api.ok("POST", "/v1/volumes/copy-into/copies", outside))["state"] == "done"
    kinds, after = [], "0-0"
    while (page := api.ok("GET", f"/v1/events?volume_id=copy-into&limit=3&after={after}"))["items"]:
        is_last = len(page["items"]) < 3  # other volumes' between them shorten no page
        assert not is_last or not api.ok("GET", f"/v1/events?volume_id=copy-into&after={page['next_after']}")["items"]
        kinds += [event["kind"] for event in page["items"]]
        after = page["next_after"]
    kinds = kinds[len(kinds) - 1 - kinds[::-1].index("volume.created") :]  # the host's log outlives a run
    assert kinds[:2] == ["volume.created", "volume.served"] and kinds.count("task.ended") == 4


def test_a_task_is_steered_and_its_end_is_followed(api, volumes):
    (volumes["copy-from"] / "large").write_bytes(os.urandom(4 << 20))
    connection = UnixConnection(api.path)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/events/stream?volume_id=copy-into")
        stream = connection.getresponse()
        assert stream.status == http.client.OK and stream.headers["content-type"].startswith("text/event-stream")
        request = {
            "source": {"volume_id": "copy-from", "path": "large"}, "target_path": "large", "bytes_per_s": 1 << 20,
        }  # fmt: skip
        key = {"Idempotency-Key": f"copy-{time.time()}"}
        task = api.ok("POST", "/v1/volumes/copy-into/copies", request, key)
        assert api.ok("POST", "/v1/volumes/copy-into/copies", request, key) == task
        of_task = f"/v1/volumes/copy-into/tasks/{task['operation_id']}"
        assert api.ok("POST", f"{of_task}/pause")["state"] == "paused"
        assert api.ok("POST", f"{of_task}/resume")["state"] == "running"
        assert api.ok("POST", f"{of_task}/cancel")["state"] == "cancelled"
        assert api.ask("POST", f"{of_task}/cancel").code == "busy"
        assert os.listdir(volumes["copy-into"]) == []
        told = []
        while not told or told[-1]["kind"] != "task.ended":
            line = stream.readline().decode()
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
    assert [event["kind"] for event in told] == ["task.taken_on", "task.ended"]
    assert told[1]["facts"]["state"] == "cancelled"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"target_path": "../up"}, "invalid_request"), ({"target_path": "a/../../b"}, "invalid_request"),
        ({"source": {"path": "/etc"}}, "invalid_request"), ({"target_path": ".volgate/x"}, "invalid_argument"),
        ({"source": {"volume_id": "nobody"}}, "not_found"), ({"kind": "move"}, "invalid_request"),
        ({"source": {"volume_id": "copy-from", "source": "/etc"}}, "invalid_argument"),
        ({"source": {"source": "/etc", "snapshot_id": "x"}}, "invalid_argument"),
        ({"source": {"source": "/nowhere"}}, "not_found"),
        ({"source": {"source": "/etc", "path": "nothing"}}, "not_found"), ({"delete": True}, "invalid_argument"),
        ({"bytes_per_s": 0}, "invalid_request"), ({"source": {"path": ""}}, "invalid_argument"),
    ],
)  # fmt: skip
def test_a_copy_that_is_none_is_refused(api, volumes, change, code):
    request = {"source": {"volume_id": "copy-from", "path": "x"}, "target_path": "y", **change}
    assert api.ask("POST", "/v1/volumes/copy-into/copies", request).code == code
    assert api.ok("GET", "/v1/volumes/copy-into/tasks")["items"] == []


def test_a_cursor_that_is_none_and_a_task_that_is_none(api, volumes):
    assert api.ask("GET", "/v1/events?after=nonsense").code == "invalid_request"
    assert api.ask("GET", "/v1/volumes/copy-into/tasks/0123456789abcdef").code == "not_found"
    assert api.ask("GET", "/v1/volumes/copy-into/tasks/..%2F..%2Fetc").code in ("invalid_request", "unknown_route")
    assert mounting.find_mount(volumes["copy-into"]) is not None
