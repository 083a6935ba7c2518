"""The daemon's socket, by itself: no client ends it, and no fault in one answer."""

import contextlib
import json
import logging
import socket

import pytest
import trio

from volgate.control.server import ControlServer, Stream, json_reply


def test_a_client_that_goes_away_while_its_answer_is_made_ends_nothing(place):
    made = []

    async def slow(_body):
        with trio.CancelScope(shield=True):  # as what runs to its end without a moment to be cancelled at
            await trio.sleep(0.2)
        made.append(True)
        return json_reply({})

    async def main():
        async with trio.open_nursery() as nursery:
            server = ControlServer(place / "s.sock", {("POST", "/slow"): slow}, [("POST", "/slow")])
            await nursery.start(server.run)
            for kept in (False, True):
                client = await trio.open_unix_socket(place / "s.sock")
                await client.send_all(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                if kept:
                    answer = await client.receive_some(65536)
                    assert answer.startswith(b"HTTP/1.1 200") and json.loads(answer.rpartition(b"\n")[2] or b"{}") == {}
                else:
                    await trio.sleep(0.05)
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await client.aclose()
                await trio.sleep(0.4)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert made == [True, True]


def ask(path, head):
    """Return all of an answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(head + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\ncontent")
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # the content was not read
            while part := client.recv(65536):
                answer += part
        return answer


async def breaks(*_):
    raise ZeroDivisionError("nobody foresaw it")


async def breaks_in_the_middle(_parameters, upload):
    async def pieces():
        yield b"begun"
        raise ZeroDivisionError("nobody foresaw it")

    _ = [piece async for piece in upload.pieces]
    return Stream("text/plain", 100, pieces())


async def breaks_in_a_group(_body):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(breaks)


@pytest.mark.parametrize(
    ("head", "answer"),
    [
        (b"POST /plain", b"HTTP/1.1 500"), (b"POST /group", b"HTTP/1.1 500"), (b"POST /patient", b"HTTP/1.1 500"),
        (b"GET /stream", b"HTTP/1.1 500"), (b"PUT /stream", b"HTTP/1.1 500"), (b"GET /middle", b"HTTP/1.1 200"),
        (b"PUT /middle", b"HTTP/1.1 200"), (b"POST /no-reply", b""),
    ],
)  # fmt: skip
def test_a_fault_that_nobody_foresaw_ends_its_own_connection_alone(place, caplog, head, answer):
    async def lives(_body):
        return json_reply("lives")

    async def no_reply(_body):
        return 200, None, b""

    async def main():
        path = place / "s.sock"
        routes = {
            ("POST", "/plain"): breaks, ("POST", "/group"): breaks_in_a_group, ("POST", "/patient"): breaks,
            ("POST", "/no-reply"): no_reply, ("GET", "/lives"): lives,
        }  # fmt: skip
        streams = {
            (method, route): answers
            for method in ("GET", "PUT")
            for route, answers in (("/stream", breaks), ("/middle", breaks_in_the_middle))
        }
        async with trio.open_nursery() as nursery:
            await nursery.start(ControlServer(path, routes, [("POST", "/patient")], streams).run)
            for _ in range(20):  # more than may be under way
                found = await trio.to_thread.run_sync(ask, path, head)
                assert found.startswith(answer) and (bool(found) or not answer) and b"nobody" not in found
            assert (await trio.to_thread.run_sync(ask, path, b"GET /lives")).endswith(b'"lives"')
            nursery.cancel_scope.cancel()

    with caplog.at_level(logging.ERROR):
        trio.run(main)
    assert len(caplog.records) == 20 and all(record.exc_info for record in caplog.records)
