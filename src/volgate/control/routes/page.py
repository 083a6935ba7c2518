"""The page for people, and what their browsers are told about it. See ``control.page``."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response

from volgate.control.page import FILES

router = APIRouter(include_in_schema=False)
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Only what this daemon serves, nothing inline, and no way from text to markup (CSP 3, Trusted Types)."""
_HEADERS: Final = {
    "cache-control": "no-cache",  # kept, and asked for again with its ETag: a new version is seen at once
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


async def show_file(request: Request) -> Response:
    """Serve a file of the page, or say that the browser has it (RFC 9110, 13.1.2)."""
    file = FILES[request.url.path]
    headers = {**_HEADERS, "etag": file.etag}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if file.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


for _path in FILES:
    router.add_api_route(_path, show_file, methods=["GET"], response_class=Response)
