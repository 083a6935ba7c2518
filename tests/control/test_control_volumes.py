"""The API over real mounts: volumes from their making to their end, limits, status, problems."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from controlling import new_name
from mounting import ended, find_mount, mounted, volgate, wait_until


def test_a_volume_is_made_mounted_limited_unmounted_and_deleted(api, place, name):
    (place / "data").mkdir()
    made = api.ask(
        "POST", "/v1/volumes",
        {"volume_id": name, "source": f"{place}/data", "mount_point": f"{place}/mnt", "quota_bytes": 1 << 20},
    )  # fmt: skip
    assert (made.status, made.json["state"]) == (201, "not mounted")
    assert made.json["quota"] == api.ok("GET", f"/v1/volumes/{name}/quota") == {
        "volume_id": name, "backend_type": "posix", "is_live": False, "used_bytes": None, "quota_bytes": 1 << 20,
        "file_count": None, "quota_inodes": None,
    }  # fmt: skip
    mount = api.ok("POST", f"/v1/volumes/{name}/mount")
    assert (mount["state"], mount["mount_point"]) == ("ready", f"{place}/mnt")
    assert api.ok("POST", f"/v1/volumes/{name}/mount")["state"] == "ready"
    (place / "mnt/file").write_bytes(b"x" * 1000)
    quota = api.ok("PATCH", f"/v1/volumes/{name}/quota", {"quota_bytes": 1500})
    assert (quota["used_bytes"], quota["quota_bytes"], quota["file_count"], quota["is_live"]) == (1000, 1500, 1, True)
    with pytest.raises(OSError, match="quota"):
        (place / "mnt/more").write_bytes(b"x" * 501)
    assert api.ok("PATCH", f"/v1/volumes/{name}/quota", {"quota_inodes": None})["quota_bytes"] == 1500
    status = api.ok("GET", f"/v1/volumes/{name}/status")
    assert (status["quota"]["used_bytes"], status["state"], status["problems"]) == (1500, "ready", [])
    assert api.ok("GET", f"/v1/volumes/{name}/ready")["ready"]
    assert api.ask("DELETE", f"/v1/volumes/{name}").code == "busy"
    unmounted = api.ok("POST", f"/v1/volumes/{name}/unmount")
    assert (unmounted["state"], unmounted["quota"]["used_bytes"]) == ("not mounted", 1500)
    assert find_mount(place / "mnt") is None
    stored = api.ok("GET", f"/v1/volumes/{name}/quota")
    assert (stored["used_bytes"], stored["file_count"], stored["is_live"]) == (1500, 2, False)
    assert api.ask("DELETE", f"/v1/volumes/{name}").status == 204
    assert api.ask("GET", f"/v1/volumes/{name}").code == "not_found"
    assert (place / "data/file").read_bytes() == b"x" * 1000
    assert api.ok("POST", "/v1/adoptions", {"source": f"{place}/data"})["volume_id"] == name


def test_a_volume_whose_owner_was_started_for_a_call_is_deleted_at_once(api, made):
    api.ok("POST", f"/v1/volumes/{made}/files/mkdir", {"path": "d"})
    assert api.ok("GET", f"/v1/volumes/{made}")["state"] == "ready, not mounted"
    assert api.ask("DELETE", f"/v1/volumes/{made}").status == 204


def test_the_command_line_and_the_api_show_and_do_the_same(api, made):
    shown = json.loads(volgate("volume", "show", made, "--json").stdout)
    found = api.ok("GET", f"/v1/volumes/{made}")
    assert {key: shown[key] for key in ("uuid", "source", "mount_point", "options", "state")} == {
        key: found[key] for key in ("uuid", "source", "mount_point", "options", "state")
    }
    api.ok("PATCH", f"/v1/volumes/{made}", {"options": "ro"})
    assert json.loads(volgate("volume", "show", made, "--json").stdout)["options"] == "ro"
    assert volgate("volume", "delete", made).returncode == 0
    assert api.ask("GET", f"/v1/volumes/{made}").status == 404


def test_what_is_changed_of_a_volume_holds_at_its_next_mount(api, place, made):
    changed = api.ok("PATCH", f"/v1/volumes/{made}", {"mount_point": f"{place}/elsewhere", "options": "ro"})
    assert (changed["mount_point"], changed["options"]) == (f"{place}/elsewhere", "ro")
    assert api.ok("POST", f"/v1/volumes/{made}/mount")["read_only"]
    assert find_mount(place / "elsewhere") is not None
    refused = api.ask("PATCH", f"/v1/volumes/{made}/quota", {"quota_bytes": 1})
    assert (refused.status, refused.code) == (409, "serve_failed") and "read only" in refused.json["detail"]
    api.ok("POST", f"/v1/volumes/{made}/unmount")
    assert api.ok("PATCH", f"/v1/volumes/{made}", {"mount_point": None, "options": ""})["mount_point"] is None
    assert api.ask("POST", f"/v1/volumes/{made}/mount").code == "invalid_argument"


def test_files_that_are_open_hold_an_unmount_up_unless_it_is_lazy(api, place, mounted_name):
    with (place / "mnt/file").open("w") as file:
        file.write("kept")
        file.flush()
        busy = api.ask("POST", f"/v1/volumes/{mounted_name}/unmount", {})
        assert (busy.code, busy.status) == ("busy", 409)
        api.ok("POST", f"/v1/volumes/{mounted_name}/unmount", {"lazy": True})
    assert find_mount(place / "mnt") is None
    assert (place / "data/file").read_text() == "kept"


def test_who_sits_in_a_mount_holds_an_unmount_up(api, place, mounted_name, monkeypatch):
    monkeypatch.chdir(place / "mnt")
    assert api.ask("POST", f"/v1/volumes/{mounted_name}/unmount").code == "busy"
    monkeypatch.undo()
    api.ok("POST", f"/v1/volumes/{mounted_name}/unmount")


def test_how_a_mount_is_is_not_told_where_none_is(api, made):
    for method, target in (("GET", "status"), ("POST", "unmount")):
        answer = api.ask(method, f"/v1/volumes/{made}/{target}")
        assert (answer.status, answer.code) == (409, "not_mounted"), target
    assert api.ask("GET", f"/v1/volumes/{made}/ready").code == "not_ready"


def test_what_is_asked_of_a_volume_that_nobody_serves_is_done_by_an_owner_that_goes_again(api, place, made):
    (place / "data/file").write_text("first")
    (place / "other").mkdir()
    (place / "other/file").write_text("copied")
    volume = f"/v1/volumes/{made}"
    with ThreadPoolExecutor() as pool:  # who asks at the same moment is answered by the same owner
        taken = list(pool.map(lambda n: api.ask("POST", f"{volume}/snapshots", {"snapshot_id": f"s{n}"}), range(4)))
    assert [answer.status for answer in taken] == [201] * 4, [answer.json for answer in taken]
    assert "not mounted" in api.ok("GET", volume)["state"]
    pid = json.loads(volgate("status", made, "--json").stdout)["pid"]
    wait_until(lambda: ended(pid), 60)
    sent = api.ask("PUT", f"{volume}/files/content?path=new", {"a": 1})
    assert sent.status == 201, sent.json
    assert api.ok("PATCH", f"{volume}/quota", {"quota_bytes": 2 << 20})["quota_bytes"] == 2 << 20
    changes = api.ok("GET", f"{volume}/snapshots/s0/diff")["items"]
    assert [change["path"] for change in changes] == ["new"]
    copied = api.ok("POST", f"{volume}/copies", {"source": {"source": f"{place}/other"}, "target_path": "copy"})
    api.ok("POST", f"{volume}/mount")  # takes the volume, and goes on with what was begun
    wait_until(lambda: api.ok("GET", f"{volume}/tasks/{copied['operation_id']}")["state"] == "done", 60)
    assert (place / "mnt/copy/file").read_text() == "copied"
    assert len(api.ok("GET", f"{volume}/snapshots")["items"]) == 4


def test_an_owner_that_cannot_begin_says_why(api, place, made):
    (place / "data").rename(place / "away")
    refused = api.ask("GET", f"/v1/volumes/{made}/files")
    assert (refused.status, refused.code) == (409, "serve_failed") and str(place / "data") in refused.json["detail"]


def test_a_mount_by_hand_is_known_by_the_volumes_name(api, place, name):
    with mounted(place) as mount:
        assert api.ask("GET", f"/v1/volumes/{mount.volume_id()}").code == "not_found"
        adopted = api.ok("POST", "/v1/adoptions", {"source": f"{place}/volume.data"})
        assert (adopted["state"], adopted["mount_point"]) == ("ready", f"{place}/volume")
        assert volgate("volume", "delete", adopted["volume_id"]).returncode != 0
    assert api.ask("DELETE", f"/v1/volumes/{adopted['volume_id']}").status == 204


def test_a_mount_that_fails_says_why(api, place, made):
    (place / "mnt/file").write_text("in the way")
    failed = api.ask("POST", f"/v1/volumes/{made}/mount")
    assert (failed.status, failed.code) == (409, "mount_failed")
    assert "is not empty" in failed.json["detail"]


def test_what_makes_no_sense_is_refused_with_its_reason(api, place, made):
    for body, status, code in (
        ({"volume_id": made, "source": f"{place}/other"}, 409, "already_exists"),
        ({"volume_id": new_name(), "source": f"{place}/data"}, 409, "already_exists"),
        ({"volume_id": new_name(), "source": "relative/path"}, 422, "invalid_request"),
        ({"volume_id": "../etc", "source": f"{place}/data"}, 422, "invalid_request"),
        ({"volume_id": "control", "source": f"{place}/other"}, 400, "invalid_argument"),
        ({"volume_id": new_name(), "source": f"{place}/o", "mount_point": "/a/../b"}, 422, "invalid_request"),
        ({"volume_id": new_name(), "source": f"{place}/o", "options": "frob"}, 400, "invalid_argument"),
        ({"volume_id": new_name(), "source": f"{place}/o", "options": "region=x"}, 400, "invalid_argument"),
        ({"volume_id": new_name(), "source": "gopher://x"}, 400, "invalid_argument"),
        ({"volume_id": new_name(), "source": f"{place}/o", "quota_bytes": -1}, 422, "invalid_request"),
        ({"volume_id": new_name(), "source": f"{place}/o", "quota_bytes": 2**63}, 422, "invalid_request"),
        ({"volume_id": new_name(), "source": f"{place}/o", "quota_bytes": "10"}, 422, "invalid_request"),
        ({"volume_id": new_name(), "source": f"{place}/o", "more": 1}, 422, "invalid_request"),
        (b"{", 422, "invalid_request"),
        (b"\xff", 400, "malformed_request"),
        (b"[" * 100_000, 400, "malformed_request"),
    ):
        answer = api.ask("POST", "/v1/volumes", body)
        assert (answer.status, answer.code) == (status, code), (body, answer)
    assert api.ask("DELETE", f"/v1/volumes/{made}?with_share=true").code == "unsupported"
    assert api.ask("PATCH", f"/v1/volumes/{made}", {}).code == "invalid_argument"


def test_a_body_that_is_not_said_to_be_json_is_refused_with_the_header_to_send(api):
    body = b'{"volume_id": "x", "source": "/srv/x"}'
    for method, target in (
        ("POST", "/v1/volumes"),
        ("PATCH", "/v1/volumes/x/quota"),
        ("POST", "/v1/volumes/x/unmount"),
    ):
        answer = api.ask(method, target, body, {"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.code == "invalid_request"
        assert answer.json["detail"] == "body: send JSON with the header 'Content-Type: application/json'"


def test_a_volume_that_is_none_is_refused_with_what_the_api_can_do(api):
    copy = {"source": {"path": "a"}, "target_path": "x"}
    for method, rest, body in (
        ("GET", "", None), ("PATCH", "", {"options": ""}), ("DELETE", "", None), ("GET", "/quota", None),
        ("POST", "/mount", None), ("GET", "/status", None), ("GET", "/files", None), ("GET", "/snapshots", None),
        ("POST", "/copies", copy),
    ):  # fmt: skip
        answer = api.ask(method, f"/v1/volumes/no-such{rest}", body)
        assert answer.code == "not_found" and answer.json["detail"] == (
            "no volume 'no-such' is known here; POST /v1/volumes makes one, POST /v1/adoptions enters one that exists"
        )


def test_a_volume_that_is_not_mounted_is_told_with_its_stored_limits(api, place, made):
    quota = api.ok("GET", f"/v1/volumes/{made}")["quota"]
    assert quota == api.ok("GET", f"/v1/volumes/{made}/quota")
    assert (quota["quota_bytes"], quota["is_live"]) == (1 << 20, False)
    (place / "data").rename(place / "elsewhere")
    assert api.ok("GET", f"/v1/volumes/{made}")["quota"] is None


def test_routes_and_methods_that_are_not_there_are_told_apart(api):
    assert api.ask("GET", "/v1/nothing").code == "unknown_route"
    refused = api.ask("PUT", "/v1/volumes")
    assert (refused.code, set(refused.headers["allow"].split(", "))) == ("method_not_allowed", {"GET", "POST"})


def test_a_list_comes_in_pages_and_whole(api, place):
    names = sorted(new_name() for _ in range(5))
    try:
        for name in names:
            api.ok("POST", "/v1/volumes", {"volume_id": name, "source": f"{place}/{name}"})
        listed = [volume["volume_id"] for volume in api.all_items("/v1/volumes", 2)]
        assert [name for name in listed if name in names] == names
        assert listed == sorted(set(listed))
        for cursor in ("x", "bnVsbA", "WzFd", "WyJhIl0" * 1000):
            assert api.ask("GET", f"/v1/volumes?cursor={cursor}").status in (400, 422)
    finally:
        for name in names:
            api.ask("DELETE", f"/v1/volumes/{name}")
    assert api.ask("GET", "/v1/volumes?limit=0").code == "invalid_request"


def at_once(count, call):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: call(), range(count)))


def test_what_is_asked_for_many_times_at_once_is_done_once(api, place, name):
    body = {"volume_id": name, "source": f"{place}/data", "mount_point": f"{place}/mnt"}
    made = at_once(6, lambda: api.ask("POST", "/v1/volumes", body))
    assert sorted(answer.status for answer in made) == [201, 409, 409, 409, 409, 409]
    assert [answer.code for answer in made if answer.status == 409] == ["already_exists"] * 5
    mounts = at_once(6, lambda: api.ask("POST", f"/v1/volumes/{name}/mount"))
    assert [(answer.status, answer.json["state"]) for answer in mounts] == [(200, "ready")] * 6
    ended = at_once(6, lambda: api.ask("POST", f"/v1/volumes/{name}/unmount"))
    assert sorted(answer.status for answer in ended) == [200, 409, 409, 409, 409, 409]
    gone = at_once(6, lambda: api.ask("DELETE", f"/v1/volumes/{name}"))
    assert sorted(answer.status for answer in gone) == [204, 404, 404, 404, 404, 404]


def test_a_mount_that_hangs_is_shown_so_and_holds_nobody_up(api, place, mounted_name):
    pid = api.ok("GET", f"/v1/volumes/{mounted_name}/status")["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert api.ok("GET", f"/v1/volumes/{mounted_name}")["state"] == "degraded"
        assert api.ask("GET", f"/v1/volumes/{mounted_name}/ready").code == "not_ready"
        hung = api.ask("GET", f"/v1/volumes/{mounted_name}/status")
        assert (hung.status, hung.code, hung.headers["retry-after"]) == (503, "timed_out", "5")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert api.ok("GET", f"/v1/volumes/{mounted_name}/status")["state"] == "ready"


def test_a_mount_whose_daemon_died_is_mounted_again(api, place, mounted_name):
    (place / "mnt/file").write_text("kept")
    os.kill(api.ok("GET", f"/v1/volumes/{mounted_name}/status")["pid"], signal.SIGKILL)
    wait_until(lambda: api.ok("GET", f"/v1/volumes/{mounted_name}")["state"] == "dead")
    assert api.ask("GET", f"/v1/volumes/{mounted_name}/quota").json["is_live"] is False
    assert api.ok("POST", f"/v1/volumes/{mounted_name}/mount")["state"] == "ready"
    assert (place / "mnt/file").read_text() == "kept"
