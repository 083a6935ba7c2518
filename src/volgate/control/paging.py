"""Lists in pages: in the order of a key, and continued behind it, so that what comes or goes meanwhile harms none."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, TypeVar

from fastapi import Query

from volgate.control.dto.fields import Cursor
from volgate.errors import InvalidArgument

T = TypeVar("T")
_MOST: Final = 1000
Limit = Annotated[int, Query(ge=1, le=_MOST, description="How many items at most.")]
DEFAULT_LIMIT: Final = 100
After = Annotated[Cursor | None, Query()]


def cut_page(
    items: Iterable[T], key: Callable[[T], tuple[Any, ...]], limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """Return the items behind a cursor, and the cursor of the next page; None where this is the last.

    Args:
        key: what they are ordered by, texts and numbers; no two have the same.

    Raises:
        InvalidArgument: the cursor is of no list, or of another one.
    """
    ordered = sorted(items, key=key)
    if cursor is not None:
        after = decode_cursor(cursor)
        try:
            ordered = [item for item in ordered if key(item) > after]
        except TypeError as error:
            raise InvalidArgument("the cursor is another list's") from error
    page = ordered[:limit]
    return page, encode_cursor(key(page[-1])) if len(ordered) > limit else None


def encode_cursor(key: tuple[Any, ...]) -> str:
    """Return the cursor of a list that goes on behind a key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, length: int | None = None) -> tuple[Any, ...]:
    """Return the key of a cursor; ``length``: of how many members. Raises InvalidArgument: it is none."""
    try:
        key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise InvalidArgument("the cursor is none that an answer gave") from error
    if not isinstance(key, list) or (length is not None and len(key) != length):
        raise InvalidArgument("the cursor is none that an answer gave")
    return tuple(key)
