"""What a server keeps of its promises, found out by breaking them: servers differ, and some ignore conditions.

Every probe works on an object of its own below the reserved prefix, and removes it.
"""

from __future__ import annotations

import contextlib
import ssl
import uuid
from typing import TYPE_CHECKING, Final

import trio

from volgate.drivers.object_store import StoreCapabilities
from volgate.drivers.s3.client import use_proxy
from volgate.errors import AlreadyExists, BadConfiguration, PermissionDenied, Stale, StorageException

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from volgate.drivers.s3.settings import S3Settings
    from volgate.drivers.s3.store import S3ObjectStore

_PREFIX: Final = ".volgate/probe/"
_OTHER_ETAG: Final = "0" * 32
_HANDSHAKE_S: Final = 5.0


async def check_trust(settings: S3Settings) -> None:
    """Refuse a server whose certificate is not trusted: the runtime would try again for half a minute, and not say why.

    Raises:
        BadConfiguration: the certificate does not fit; says in which way. Whatever else fails here fails later again.
    """
    if not settings.is_tls or use_proxy(settings) is not None:
        return
    name, _, port = settings.host.partition(":")
    context = ssl.create_default_context(cafile=settings.ca_bundle)
    with trio.move_on_after(_HANDSHAKE_S), contextlib.suppress(OSError, trio.BrokenResourceError):
        stream = await trio.open_ssl_over_tcp_stream(name, int(port or 443), ssl_context=context)
        try:
            await stream.do_handshake()
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                why = error.__cause__.verify_message
                raise BadConfiguration(f"{settings.host} is not trusted: {why}; see ca_bundle=") from error
        finally:
            await trio.aclose_forcefully(stream)


async def find_capabilities(store: S3ObjectStore) -> StoreCapabilities:
    """Write, try each condition, and clear away. Sets the store's ``quotes_etags``.

    Raises:
        PermissionDenied: objects cannot be written or deleted here; says which.
    """
    key = _PREFIX + uuid.uuid4().hex
    try:
        etag = await store.put(key, b"probe")
    except PermissionDenied as error:
        raise PermissionDenied(f"{error}; the credentials may not write here (s3:PutObject)") from error
    upload_id = None
    try:
        store.quotes_etags = not await _refuses(store.put(key, b"probe", if_match=etag))
        if not store.quotes_etags:
            await store.put(key, b"probe")
        conditional_put = await _refuses(store.put(key, b"x", if_absent=True)) and await _refuses(
            store.put(key, b"x", if_match=_OTHER_ETAG)
        )
        conditional_copy = await _refuses(store.copy(key, key + "-copy", source_etag=_OTHER_ETAG))
        upload_id = await store.begin_upload(key)
        part = await store.put_part(key, upload_id, 1, b"part")
        conditional_complete = await _refuses(
            store.complete_upload(key, upload_id, [part], if_absent=True)
        ) and await _refuses(store.complete_upload(key, upload_id, [part], if_match=_OTHER_ETAG))
        checksums = await store.heeds_checksums(key)
        conditional_delete = await _refuses(store.delete(key, if_match=_OTHER_ETAG))
    finally:
        with contextlib.suppress(StorageException):
            if upload_id is not None:
                await store.abort_upload(key, upload_id)
            await store.delete(key + "-copy")
    try:
        await store.delete(key)
    except PermissionDenied as error:
        raise PermissionDenied(f"{error}; the credentials may not delete here (s3:DeleteObject)") from error
    return StoreCapabilities(conditional_put, conditional_complete, conditional_delete, conditional_copy, checksums)


async def _refuses(attempt: Awaitable[object]) -> bool:
    """Return whether a request is refused for its condition, as it should be."""
    try:
        await attempt
    except PermissionDenied:
        raise
    except (AlreadyExists, Stale):
        return True
    except StorageException:
        return False
    return False
