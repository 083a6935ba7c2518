"""The log of events: whole lines in order for everybody who follows, whatever happens to who appends."""

import json
import logging
import os
import subprocess
import sys
import threading

import pytest

from volgate.daemon.health import Problem
from volgate.daemon.observing import THRESHOLDS, Observer, find_level
from volgate.dto import StorageQuotaInfo
from volgate.errors import InputOutput
from volgate.events import EventLog, Recorder


def test_events_are_read_in_order_and_followed_by_their_cursors(tmp_path):
    log = EventLog(tmp_path / "events")
    assert log.read() == [] and log.end() == "1-0"
    for number in range(10):
        log.append(number, "task.ended", f"number {number}", {"n": number, "name": "ü\n\"'"})
    found = log.read()
    assert [event.facts["n"] for event in found] == list(range(10)) and found[3].facts["name"] == "ü\n\"'"
    assert log.read(found[3].cursor) == found[4:] and log.read(found[3].cursor, limit=2) == found[4:6]
    assert log.read(log.end()) == [] and log.end() == found[-1].cursor
    for wrong in ("", "x", "1", "1-", "-1-2", "1-2-3", "9" * 20 + "-1"):
        with pytest.raises(ValueError, match="no event's cursor"):
            log.read(wrong)


def test_old_files_go_and_who_follows_goes_on_with_the_oldest(tmp_path):
    log = EventLog(tmp_path / "events", file_bytes=500)
    for number in range(60):
        log.append(number, "a.b", "x" * 50, {"n": number})
    files = sorted(int(path.stem) for path in (tmp_path / "events").glob("*.jsonl"))
    assert len(files) == 4
    found = log.read("1-0")
    assert [event.facts["n"] for event in found] == list(range(found[0].facts["n"], 60))
    assert found[0].facts["n"] > 0 and sum(path.stat().st_size for path in (tmp_path / "events").iterdir()) < 4 * 700


def test_torn_foreign_and_newer_lines_are_passed_over(tmp_path):
    log = EventLog(tmp_path)
    log.append(1, "a.b", "first", {})
    with (tmp_path / "1.jsonl").open("ab") as file:
        file.write(
            b'{"format": 1, "at": 2, "ki\n[]\n\0\n{"format": 9, "at": 1, "kind": "x.y", "message": "", "facts": {}}\n'
        )
    log.append(3, "a.b", "second", {})
    with (tmp_path / "1.jsonl").open("ab") as file:
        file.write(b'{"format": 1, "at": 4')  # being written
    assert [event.message for event in log.read()] == ["first", "second"]
    assert log.read("1-7")[-1].message == "second"  # a cursor within a line


def test_who_followed_a_log_that_was_emptied_or_replaced_goes_on_with_what_comes(tmp_path):
    log = EventLog(tmp_path)
    for number in range(5):
        log.append(number, "a.b", "before", {})
    behind = log.end()
    os.truncate(tmp_path / "1.jsonl", 0)
    assert log.read(behind) == []
    log.append(9, "a.b", "after", {})
    assert [event.message for event in log.read(behind)] == ["after"]
    (tmp_path / "1.jsonl").rename(tmp_path / "7.jsonl")
    log.append(10, "a.b", "more", {})
    assert log.end().startswith("7-")
    behind = log.end()
    (tmp_path / "7.jsonl").unlink()
    assert log.read(behind) == []
    log.append(11, "a.b", "anew", {})
    assert [event.message for event in log.read(behind)] == ["anew"]
    assert [event.message for event in log.read("1-999999999999")] == ["anew"] and log.read(log.end()) == []


def test_a_log_that_cannot_be_read_is_a_problem_that_names_it(tmp_path):
    (tmp_path / "events").write_text("in the way")
    log = EventLog(tmp_path / "events")
    for look in (log.read, log.end):
        with pytest.raises(InputOutput, match=f"the events of this host cannot be read: {tmp_path}/events: Not a dir"):
            look()


_APPEND = """
import sys
from pathlib import Path
from volgate.errors import InputOutput
from volgate.events import EventLog
log = EventLog(Path(sys.argv[1]), file_bytes=5000)
for number in range(100):
    log.append(number, "a.b", "m", {"who": int(sys.argv[2]), "n": number})
"""


def test_several_processes_append_and_who_follows_misses_none(tmp_path):
    log = EventLog(tmp_path, file_bytes=5000)
    seen, ended = [], threading.Event()

    def follow():
        cursor = None
        while True:
            last = ended.is_set()
            found = log.read(cursor)
            seen.extend((event.facts["who"], event.facts["n"]) for event in found)
            cursor = found[-1].cursor if found else cursor
            if last and not found:
                return

    follower = threading.Thread(target=follow)
    follower.start()
    writers = [subprocess.Popen([sys.executable, "-c", _APPEND, tmp_path, str(who)]) for who in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    ended.set()
    follower.join(30)
    assert len(seen) == len(set(seen)) == 300
    for who in range(3):
        assert [n for found, n in seen if found == who] == list(range(100))


def test_log_records_that_name_an_event_become_one_whatever_people_want_to_read(tmp_path, capsys):
    from volgate import logs

    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = []
    try:
        logs.set_up(level="error")
        log = EventLog(tmp_path)
        with Recorder(log, {"volume_id": "v"}):
            logging.getLogger("volgate.x").info("it %s", "happened", extra={"event": "a.b", "n": 1})
            logging.getLogger("volgate.x").info("nobody cares", extra={"n": 2})
            logs.set_up(level="error")  # at SIGHUP
            logging.getLogger("volgate.x").error("it failed", extra={"event": "a.c"})
        logging.getLogger("volgate.x").error("later", extra={"event": "a.d"})
    finally:
        root.handlers[:], root.level = before
    assert [(event.kind, event.message, event.facts) for event in log.read()] == [
        ("a.b", "it happened", {"volume_id": "v", "n": 1}), ("a.c", "it failed", {"volume_id": "v"}),
    ]  # fmt: skip
    said = capsys.readouterr().err
    assert "it failed" in said and "happened" not in said and "a.c" not in said


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path, capsys):
    (tmp_path / "events").write_text("in the way")
    with Recorder(EventLog(tmp_path / "events"), {}):
        logging.getLogger("volgate.x").warning("it happened", extra={"event": "a.b"})
    assert os.listdir(tmp_path) == ["events"]


def test_thresholds_are_told_once_and_not_of_a_volume_on_the_edge():
    levels, level = [], 0
    for used in (0, 79, 80, 79, 76, 75, 85, 91, 100, 120, 96, 95, 80, 10):
        level = find_level(level, used, 100)
        levels.append(level)
    assert levels == [0, 0, 80, 80, 80, 0, 80, 90, 100, 100, 100, 95, 80, 0]
    assert find_level(0, 5, None) == 0 and find_level(80, 5, 0) == 100 and find_level(0, 0, 0) == 0
    assert tuple(sorted(THRESHOLDS)) == THRESHOLDS


def test_problems_are_told_when_they_begin_and_end(caplog):
    caplog.set_level(logging.INFO)
    found = []
    observer = Observer(lambda: found, lambda: StorageQuotaInfo("v", 90, 100, 1, "posix"))
    observer.look()
    found.append(Problem("storage_hangs", "it hangs", degrades=True))
    observer.look()
    observer.look()
    found.clear()
    observer.look()
    told = [(record.event, getattr(record, "code", record.__dict__.get("percent"))) for record in caplog.records]
    assert told == [("quota.threshold", 90), ("problem.began", "storage_hangs"), ("problem.ended", "storage_hangs")]
    assert json.dumps(told)


def test_a_threshold_says_what_is_used_also_when_usage_falls(caplog):
    caplog.set_level(logging.INFO)
    used = 85
    observer = Observer(list, lambda: StorageQuotaInfo("v", used, 100, 1, "posix"))
    observer.look()
    used = 20
    observer.look()
    told = [(record.threshold, record.percent, record.used) for record in caplog.records]
    assert told == [(80, 85, 85), (0, 20, 20)]
