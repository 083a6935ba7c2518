"""The daemon's socket, by itself: no client ends it."""

import json
import socket

import trio

from volgate.control.server import ControlServer, json_reply


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
