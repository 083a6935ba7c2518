"""Snapshots by the API, over a real mount."""

import os


def test_snapshots_are_taken_compared_restored_and_deleted(api, place, mounted_name):
    url, mnt = f"/v1/volumes/{mounted_name}/snapshots", place / "mnt"
    (mnt / "kept").write_text("as it was")
    taken = api.ask("POST", url, {"snapshot_id": "one", "metadata": {"ticket": "4711"}})
    assert (taken.status, taken.json["snapshot_id"], taken.json["metadata"]) == (201, "one", {"ticket": "4711"})
    assert api.ask("POST", url, {"snapshot_id": "one"}).code == "already_exists"
    named = api.ok("POST", url, {})["snapshot_id"]
    for number in range(5):
        (mnt / f"new-{number}").write_text("new")
    (mnt / "kept").write_text("otherwise")
    shown = api.ok("GET", f"{url}/one")
    view = shown["view"]
    assert (place / "mnt" / view["relative_path"] / "kept").read_text() == "as it was"
    assert shown["snapshot"]["preserved_bytes"] == 0 and view["mount_point"] == str(mnt)
    assert [info["snapshot_id"] for info in api.all_items(url, 1)] == ["one", named]
    changes = api.all_items(f"{url}/one/diff", 2)
    assert changes == api.ok("GET", f"{url}/one/diff")["items"]
    assert [c["path"] for c in changes if c["change"] == "added"] == [f"new-{n}" for n in range(5)]
    assert api.ok("GET", f"{url}/one/diff?later_id={named}")["items"] == []
    plan = api.ok("GET", f"{url}/one/plan?path=kept")
    assert (plan["replaced"], plan["removed"], plan["refused"]) == (1, 0, "")
    assert (mnt / "kept").read_text() == "otherwise"
    assert api.ok("POST", f"{url}/one/restore", {"path": "kept"})["replaced"] == 1
    assert (mnt / "kept").read_text() == "as it was" and (mnt / "new-1").exists()
    assert api.ok("POST", f"{url}/one/restore", {})["removed"] == 5
    assert os.listdir(mnt) == ["kept"]
    assert api.ask("DELETE", f"{url}/one").status == 204
    assert api.ask("DELETE", f"{url}/one").code == "not_found"
    assert api.ask("GET", f"{url}/one").code == "not_found"


def test_the_schedule_and_the_limit_are_shown_and_set(api, mounted_name):
    url = f"/v1/volumes/{mounted_name}"
    assert api.ok("GET", f"{url}/snapshot-schedule") == {"policy": None}
    assert api.ok("PUT", f"{url}/snapshot-schedule", {"policy": "daily=7,hourly=24"}) == {"policy": "hourly=24,daily=7"}
    assert api.ask("PUT", f"{url}/snapshot-schedule", {"policy": "never"}).code == "invalid_argument"
    assert api.ask("PUT", f"{url}/snapshot-schedule", {}).code == "invalid_request"
    assert api.ok("PUT", f"{url}/snapshot-schedule", {"policy": None}) == {"policy": None}
    assert api.ok("GET", f"{url}/snapshot-limit")["limit_bytes"] is None
    assert api.ok("PUT", f"{url}/snapshot-limit", {"limit_bytes": 4096})["limit_bytes"] == 4096


def test_snapshots_that_keep_more_than_they_may_are_full(api, place, mounted_name):
    url = f"/v1/volumes/{mounted_name}"
    (place / "mnt/f").write_bytes(bytes(100_000))
    api.ok("POST", f"{url}/snapshots", {"snapshot_id": "one"})
    (place / "mnt/f").unlink()
    limit = api.ok("PUT", f"{url}/snapshot-limit", {"limit_bytes": 1000})
    assert limit["kept_bytes"] >= 100_000 and limit["is_full"] is True
    assert api.ok("PUT", f"{url}/snapshot-limit", {"limit_bytes": None})["is_full"] is False


def test_a_restore_stays_within_its_volume(api, mounted_name):
    url = f"/v1/volumes/{mounted_name}/snapshots"
    api.ok("POST", url, {"snapshot_id": "one"})
    for path in ("/etc", "../etc", "a/../../etc", "..", "a\0b"):
        assert api.ask("POST", f"{url}/one/restore", {"path": path}).code == "invalid_request"
    for path in ("%2Fetc", "..%2Fetc", "a%00b"):
        assert api.ask("GET", f"{url}/one/plan?path={path}").code == "invalid_request"
