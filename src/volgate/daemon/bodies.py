"""What the daemons' routes ask of the JSON body of a request."""

import json
from collections.abc import Set
from typing import Any

from volgate.errors import InvalidArgument


def to_object(body: bytes, known: Set[str] | None = None) -> dict[str, Any]:
    """Return a body that is a JSON object, of known members if they are given. Raises InvalidArgument."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the body is no JSON: {error}") from error
    if not isinstance(found, dict) or (known is not None and not set(found) <= known):
        raise InvalidArgument("the body is an object" + (f" of {', '.join(sorted(known))}" if known else ""))
    return found
