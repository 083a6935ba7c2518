"""Whether a request was made by another web site in somebody's browser: pure decisions.

Over TCP a token that the page sends by itself says who asks, and no browser adds it for another site. At the unix
socket the kernel says it, whoever made the request: behind ``ssh -L`` any site that is open in the browser of the one
who forwards could ask as that user. What tells them apart is what browsers say of themselves; programs say nothing.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

from volgate.control.problems import Refusal

_LOOKS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME: Final = re.compile(r"[a-z0-9._-]+")
"""What a browser asks name servers for; programs put a socket's path, escaped, into a Host."""
_OURS: Final = frozenset({"same-origin", "none"})


def check(method: str, headers: Mapping[str, str], *, is_local: bool) -> None:
    """Refuse what another site asks for; its looks are refused by the browser, which keeps the answer from it.

    Args:
        headers: by names in small letters. is_local: it came over the unix socket.

    Raises:
        Refusal: it is another site's (Fetch Metadata; RFC 6454, 7), or came under a name that anybody's name server may
            point here (DNS rebinding), which makes that site's requests look like the page's own.
    """
    host = headers.get("host", "").lower()
    if is_local and not _is_nobodys(host):
        raise Refusal("forbidden", f"the local socket is not asked as '{host}': use localhost")
    if method in _LOOKS:
        return
    origin = headers.get("origin")
    if headers.get("sec-fetch-site", "none") not in _OURS or (origin is not None and not _is_same(origin, host)):
        raise Refusal("forbidden", "another web site asks for this change")


def _is_same(origin: str, host: str) -> bool:
    return origin.lower().partition("://")[2] == host


def _is_nobodys(host: str) -> bool:
    """Return whether no name server has a say in a Host: an address, or a name without a dot."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if "." not in name or name.endswith(".localhost") or not _NAME.fullmatch(name):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
