"""Text that JSON can carry."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return text with bytes that are not UTF-8 (``os.fsdecode`` keeps them as surrogates) escaped as ``\xNN``."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that no byte made
        return text.encode("utf-8", "backslashreplace").decode()
