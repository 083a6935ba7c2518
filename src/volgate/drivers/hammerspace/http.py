"""One HTTPS request after another to an Anvil, on trio: h11 over a connection of its own each, since calls are rare.

Every request ends by its deadline. What fails below HTTP raises Unavailable with one line for people.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

import attrs
import h11
import trio

from volgate.drivers.hammerspace.settings import HammerspaceSettings
from volgate.errors import BadConfiguration, PermissionDenied, TimedOut, Unavailable

_CHUNK_BYTES: Final = 65536
_MAX_ANSWER_BYTES: Final = 64 << 20


@attrs.frozen
class Answer:
    """What the server said. Attributes: status: of HTTP. headers: names in small letters. body: bytes."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: bytes) -> str:
        """Return a header's first value, "" where it is absent."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")


def tls_context(settings: HammerspaceSettings) -> ssl.SSLContext:
    """Return whom to trust. Raises BadConfiguration: the bundle is none."""
    try:
        context = ssl.create_default_context(cafile=settings.ca_bundle and str(settings.ca_bundle))
    except OSError as error:
        raise BadConfiguration(f"ca_bundle {settings.ca_bundle} cannot be used: {error.strerror or error}") from error
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def ask(
    settings: HammerspaceSettings,
    tls: ssl.SSLContext,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float,
) -> Answer:
    """Send one request and return the answer, whatever its status.

    Raises:
        PermissionDenied: the certificate is not trusted. TimedOut, Unavailable: retryable; a changing request may have
            been done.
    """
    place = f"the Anvil {settings.host}:{settings.port}"
    try:
        with trio.fail_after(timeout_s):
            plain = await trio.open_tcp_stream(settings.host, settings.port)
            async with trio.SSLStream(plain, tls, server_hostname=settings.host, https_compatible=True) as stream:
                return await _exchange(stream, settings, method, target, headers, body)
    except trio.TooSlowError as error:
        raise TimedOut(f"{place} did not answer within {timeout_s:g} s") from error
    except trio.BrokenResourceError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise PermissionDenied(
                f"{place}: its certificate is not trusted ({cause.verify_message}); name its authority with ca_bundle="
            ) from error
        if isinstance(cause, ssl.SSLError):
            raise Unavailable(f"{place} does not speak TLS ({cause.reason or cause})") from error
        raise Unavailable(f"{place} cut the connection") from error
    except h11.RemoteProtocolError as error:
        raise Unavailable(f"{place} cut the connection, or does not speak HTTP: {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise Unavailable(f"{place} cannot be reached, check the name and the port: {reason}") from error


async def _exchange(
    stream: trio.SSLStream[trio.SocketStream],
    settings: HammerspaceSettings,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
) -> Answer:
    http = h11.Connection(h11.CLIENT)
    whole = {
        "Host": f"{settings.host}:{settings.port}",
        "Accept": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    request = http.send(h11.Request(method=method, target=target, headers=list(whole.items())))
    assert request is not None
    await stream.send_all(request + (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b""))
    status, found, content = 0, (), bytearray()  # type: int, tuple[tuple[bytes, bytes], ...], bytearray
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(_CHUNK_BYTES)))
        elif isinstance(event, h11.Response):
            status, found = event.status_code, tuple((bytes(k), bytes(v)) for k, v in event.headers)
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > _MAX_ANSWER_BYTES:
                raise Unavailable(f"the Anvil {settings.host} answers without end")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, found, bytes(content))
