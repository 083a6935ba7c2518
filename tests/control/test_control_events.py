"""Events by the API, whatever becomes of their log."""

import contextlib
import json
import os
import sys

import pytest

from controlling import UnixConnection, started
from volgate.events import EventLog

IN_A_PLACE = """
set -eu
mkdir -p /var/lib/volgate
mount --bind "$1" /var/lib/volgate
exec "$2" -m volgate control serve
"""


@pytest.fixture
def host(place):
    """Return a control daemon with a state directory of its own, and the log of events in that."""
    (place / "state").mkdir()
    command = ["unshare", "--mount", "bash", "-c", IN_A_PLACE, "bash", str(place / "state"), sys.executable]
    with started(place / "control.sock", command) as api:
        yield api, EventLog(place / "state/events")


def next_message(stream):
    while not (line := stream.readline().decode()).startswith("data: "):
        assert line, "the stream ended"
    return json.loads(line.removeprefix("data: "))["message"]


def test_who_follows_goes_on_when_the_log_is_emptied_or_removed(host, place):
    api, log = host
    for _ in range(3):
        log.append(1, "a.b", "before", {})
    with contextlib.closing(UnixConnection(api.path, timeout_s=20)) as connection:
        connection.request("GET", "/v1/events/stream")
        stream = connection.getresponse()
        assert stream.readline() and stream.readline()
        log.append(2, "a.b", "seen", {})
        assert next_message(stream) == "seen"
        os.truncate(place / "state/events/1.jsonl", 0)
        log.append(3, "a.b", "after it was emptied", {})
        assert next_message(stream) == "after it was emptied"
        (place / "state/events/1.jsonl").rename(place / "state/events/5.jsonl")
        log.append(4, "a.b", "in another file", {})
        while next_message(stream) != "in another file":
            pass
        (place / "state/events/5.jsonl").unlink()
        log.append(5, "a.b", "after it was removed", {})
        assert next_message(stream) == "after it was removed"


def test_a_cursor_behind_the_end_goes_on_with_what_there_is(host):
    api, log = host
    page = api.ok("GET", "/v1/events?after=1-9999999999")
    assert page["items"] == []
    log.append(1, "a.b", "first", {})
    page = api.ok("GET", f"/v1/events?after={page['next_after']}")
    assert [event["message"] for event in page["items"]] == ["first"] and page["next_after"] == log.end()
    assert api.ok("GET", f"/v1/events?after={page['next_after']}")["items"] == []


def test_a_log_that_cannot_be_read_is_a_problem(host, place):
    api, _ = host
    (place / "state/events").write_text("in the way")
    for target in ("/v1/events", "/v1/events/stream"):
        answer = api.ask("GET", target)
        assert (answer.status, answer.code) == (502, "input_output"), answer
        assert "the events of this host cannot be read" in answer.json["detail"]
