"""Answers in streams: each ends with its client, and one that cannot be brought to its end is cut, and told of."""

import contextlib
import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

import controlling
from controlling import UnixConnection
from mounting import wait_until
from volgate.control import client
from volgate.control.owners import STREAMS
from volgate.control.routes.events import FOLLOWERS

DOWNLOADS = 64
HUGE_BYTES = 100 << 30
SOON_S = 60.0
"""For what another process does by itself, on a busy host."""


@pytest.fixture
def volume(api, name, place):
    """Return the name of a volume without a mount, which has a file that nobody reads to its end."""
    return make_volume(api, name, place)


def make_volume(api, name, place):
    (place / "data/d").mkdir(parents=True)
    os.truncate(os.open(place / "data/d/huge", os.O_CREAT | os.O_RDWR), HUGE_BYTES)
    api.ok("POST", "/v1/volumes", {"volume_id": name, "source": str(place / "data")})
    return name


def begin(api, target, more=b""):
    """Ask for a stream, read how it begins; return who asked, and that."""
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(SOON_S)
    asking.connect(str(api.path))
    asking.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + more)
    return asking, asking.recv(4096)


def is_begun(answer):
    return answer.startswith(b"HTTP/1.1 200 ")


def socket_of(name):
    return Path(f"/run/volgate/{name}.sock")


def under_way(name):
    return client.ask(socket_of(name), "GET", "/v1/status")["under_way"]


@pytest.mark.parametrize("more", [b"", b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["alone", "pipelined"])
def test_who_follows_and_leaves_makes_room_for_others(api, more):
    for _ in range(FOLLOWERS):
        follower, answer = begin(api, "/v1/events/stream", more)
        assert is_begun(answer), answer
        follower.close()
    with contextlib.ExitStack() as stack:

        def is_let_in():
            follower, answer = begin(api, "/v1/events/stream")
            stack.callback(follower.close)
            if not is_begun(answer):
                follower.close()
            return is_begun(answer)

        for _ in range(FOLLOWERS):
            wait_until(is_let_in, SOON_S)


@pytest.mark.parametrize("verb", ["content?path=d/huge", "archive?path=d", "archive?path=d&format=zip"])
def test_a_download_ends_with_its_client(api, volume, verb):
    for _ in range(DOWNLOADS):
        reader, answer = begin(api, f"/v1/volumes/{volume}/files/{verb}")
        assert is_begun(answer), answer
        reader.close()
    wait_until(lambda: under_way(volume) == [], SOON_S)
    assert api.ask("GET", "/v1/volumes").status == http.client.OK


def test_downloads_that_nobody_takes_hold_up_other_downloads_alone(api, volume):
    files = f"/v1/volumes/{volume}/files"
    with contextlib.ExitStack() as stack:
        for _ in range(STREAMS):
            reader, answer = begin(api, f"{files}/content?path=d/huge")
            stack.enter_context(reader)
            assert is_begun(answer), answer
        assert api.ok("GET", f"{files}?path=d")["items"] and len(under_way(volume)) == STREAMS
        refused = api.ask("GET", f"{files}/content?path=d/huge")
        assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "unavailable", "5")
        assert f"{STREAMS} files or archives" in refused.json["detail"]


def test_a_client_that_has_ended_its_questions_gets_the_rest_of_its_answer(api, volume, place):
    content = os.urandom(8 << 20)
    (place / "data/f").write_bytes(content)
    reader, found = begin(api, f"/v1/volumes/{volume}/files/content?path=f")
    with reader:
        reader.shutdown(socket.SHUT_WR)
        while part := reader.recv(1 << 20):
            found += part
    assert is_begun(found) and found.endswith(b"\r\n\r\n" + content)


def test_a_client_that_has_ended_its_questions_and_leaves_then_is_not_waited_for(api, volume):
    reader, answer = begin(api, f"/v1/volumes/{volume}/files/content?path=d/huge")
    assert is_begun(answer)
    reader.shutdown(socket.SHUT_WR)
    assert reader.recv(1 << 20)
    reader.close()
    wait_until(lambda: under_way(volume) == [], SOON_S)


def test_answers_come_one_after_another_over_one_connection(api, volume, place):
    (place / "data/f").write_bytes(b"content")
    question = f"GET /v1/volumes/{volume}/files/content?path=f HTTP/1.1\r\nHost: x\r\n".encode()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(SOON_S)
        asking.connect(str(api.path))
        asking.sendall((question + b"\r\n") * 9 + question + b"Connection: close\r\n\r\n")
        answers = b""
        while part := asking.recv(1 << 20):
            answers += part
    assert answers.count(b"\r\n\r\ncontent") == 10, answers


def test_an_answer_that_the_owner_breaks_off_is_cut_and_told_of_in_one_line(place, name):
    api = controlling.start(place / "control.sock")
    try:
        make_volume(api, name, place)
        with contextlib.closing(UnixConnection(api.path)) as connection:
            connection.request("GET", f"/v1/volumes/{name}/files/content?path=d/huge")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["content-length"]) == (http.client.OK, str(HUGE_BYTES))
            assert answer.read(1 << 20)
            os.kill(client.find_owner(socket_of(name)), signal.SIGKILL)
            while answer.read(1 << 20):
                pass
            assert answer.length  # of Content-Length, what did not come
        wait_until(lambda: "before it is whole" in api.log(), SOON_S)
        alarms = [line for line in api.log().splitlines() if "WARNING" in line or "ERROR" in line]
        assert len(alarms) == 1 and f"the owner of volume {name} broke its answer off" in alarms[0], alarms
        assert "Traceback" not in api.log()
    finally:
        api.process.send_signal(signal.SIGTERM)
        assert api.process.wait(60) == 0, api.log()


@pytest.mark.parametrize("path", ["/v1/health", "/v1/volumes", "/metrics", "/v1/volumes/{}/files?path=d"])
def test_a_client_that_ends_its_questions_at_once_gets_its_answer(api, volume, path):
    question = f"GET {path.format(volume)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(SOON_S)
        asking.connect(str(api.path))
        asking.sendall(question)
        asking.shutdown(socket.SHUT_WR)
        found = b"".join(iter(lambda: asking.recv(1 << 16), b""))
    assert is_begun(found)
