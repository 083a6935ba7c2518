"""What ``volgate doctor`` reports."""

from __future__ import annotations

import attrs


@attrs.frozen
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        state: ok, warning (works, but) or missing (does not work).
        message: what is so. remedy: the command or step that mends it, "" where nothing needs mending.
    """

    check: str
    state: str
    message: str
    remedy: str = ""
