"""``volgate events``: lines for people, and what it says where there is nothing to say."""

import os
import time

import pytest

from volgate import paths
from volgate.cli import main
from volgate.events import EventLog


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Return this host's log, which is an empty one."""
    monkeypatch.setattr(paths, "state_directory", lambda: tmp_path)
    return EventLog(tmp_path / "events")


def test_facts_are_told_as_words(log, capsys):
    facts = {"volume_id": "gone", "took_s": 0.041378021240234375, "error": "no such file", "n": 3, "nothing": None}
    log.append(0, "task.ended", "a task has ended", facts)
    assert main(["events"]) == os.EX_OK
    assert capsys.readouterr().out.endswith(
        "  gone  task.ended  a task has ended  took_s=0.041 error='no such file' n=3\n"
    )


def test_no_limit_is_told_as_such(log, capsys):
    log.append(0, "quota.changed", "limits changed", {"quota_bytes": None, "quota_inodes": 5, "nothing": None})
    assert main(["events"]) == os.EX_OK
    assert capsys.readouterr().out.endswith("limits changed  quota_bytes=unlimited quota_inodes=5\n")


def test_a_volume_that_nobody_knows_is_none(log, capsys):
    assert main(["events"]) == os.EX_OK
    log.append(0, "volume.ended", "it ended", {"volume_id": "deleted-since"})
    assert main(["events", "deleted-since"]) == os.EX_OK
    assert "it ended" in capsys.readouterr().out
    assert main(["events", "no-such-volume"]) == os.EX_UNAVAILABLE
    assert main(["events", "no-such-volume", "--follow"]) == os.EX_UNAVAILABLE
    assert "no volume 'no-such-volume' is known" in capsys.readouterr().err


def test_a_log_that_cannot_be_read_is_no_bug(log, tmp_path, capsys):
    (tmp_path / "events").write_text("in the way")
    assert main(["events"]) == os.EX_UNAVAILABLE
    assert f"volgate: the events of this host cannot be read: {tmp_path}/events: Not a" in capsys.readouterr().err


def test_who_follows_is_told_the_last_ten_and_then_each_that_comes(log, monkeypatch, capsys):
    for number in range(1200):  # more than one read brings
        log.append(number, "limit.changed", f"event {number}", {"volume_id": "wanted" if number % 2 else "other"})
    appended = iter(range(1200, 1203))

    def append_one(_):
        number = next(appended, None)
        if number is None:
            raise KeyboardInterrupt
        log.append(number, "limit.changed", f"event {number}", {"volume_id": "wanted"})

    monkeypatch.setattr(time, "sleep", append_one)
    main(["events", "wanted", "--follow"])
    told = [int(line.split("event ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert told == [*range(1181, 1200, 2), 1200, 1201, 1202]
