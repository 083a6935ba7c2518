"""Who asks: at the unix socket by the kernel's word, over TCP by a token."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from volgate.control.aside import Aside
from volgate.control.door import HEALTH
from volgate.control.http_server import PEER, Peer
from volgate.control.page import FILES
from volgate.control.problems import Refusal
from volgate.control.roles import ADMIN_OF_ALL, Grant, Principal
from volgate.control.signed_tokens import SignedTokens
from volgate.control.tokens import PREFIX, TokenFile

_OPEN_TO_ALL: Final = frozenset({HEALTH, *FILES})
"""What is answered over TCP to whoever asks, and tells nothing: load balancers, and the page where tokens are typed."""
_BEARER: Final = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)
_ASK: Final = (("www-authenticate", "Bearer"),)


class Doorkeeper:
    """Finds out who asks.

    Args:
        users: what users may who are neither root nor the daemon's own, by uid.
        tokens: opaque ones. signed: those that others make; None = none are believed.
        aside: threads to read the file of tokens in.
    """

    def __init__(
        self, users: Mapping[int, tuple[Grant, ...]], tokens: TokenFile, signed: SignedTokens | None, aside: Aside
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._signed = signed
        self._aside = aside
        self._mine = os.geteuid()

    async def identify(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Principal:
        """Return who asks. Raises Refusal: nobody who may ask anything."""
        peer: Peer | None = scope.get(PEER)
        if peer is not None:
            return self._by_peer(peer)
        if scope["path"] in _OPEN_TO_ALL:
            return Principal("nobody", ())
        return await self._by_token(headers.get("authorization", ""))

    def _by_peer(self, peer: Peer) -> Principal:
        name = f"uid:{peer.uid}"
        if peer.uid in (0, self._mine):
            return Principal(name, (ADMIN_OF_ALL,))
        grants = self._users.get(peer.uid, ())
        if not grants:
            raise Refusal("forbidden", f"{name} has no role here; [control] roles gives some")
        return Principal(name, grants)

    async def _by_token(self, authorization: str) -> Principal:
        given = _BEARER.fullmatch(authorization.strip())
        if given is None:
            raise Refusal("unauthenticated", "say who asks: 'Authorization: Bearer TOKEN'", headers=_ASK)
        text = given[1]
        if self._signed is not None and not text.startswith(PREFIX):
            return self._signed.check(text)
        token = await self._aside.call(lambda: self._tokens.find(text))
        if token is None or token.expires_at <= time.time():
            raise Refusal("unauthenticated", "the token is refused: it is unknown, or has expired", headers=_ASK)
        return Principal(f"token:{token.name}", token.grants)
