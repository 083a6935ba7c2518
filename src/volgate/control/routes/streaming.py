"""An answer in pieces, perhaps without an end: it holds what it needs only as long as its client is there."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from volgate.errors import StorageException

log = logging.getLogger(__name__)


class Streamed(StreamingResponse):
    """See the module. What goes wrong in the middle cuts it, which is all that its client can be told.

    Args:
        pieces: of the answer. held: what they need; it is let go however the answer ends, also before it has begun.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        held: contextlib.AsyncExitStack,
        status: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(pieces, status, headers, media_type)
        self._pieces = pieces
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the door cancels this when the client is gone, so nothing here listens for that."""
        async with self._held, contextlib.aclosing(self._pieces):
            try:
                await self.stream_response(send)
            except StorageException as error:
                facts = {"path": scope["path"], "error": str(error)}
                log.warning("an answer ends before it is whole", extra=facts)
