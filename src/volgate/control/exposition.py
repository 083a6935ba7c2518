"""Joining Prometheus expositions into one that is well formed: every family once, with one HELP and one TYPE. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from volgate.errors import InvalidArgument

_COMMENT: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*)(?: (.*))?")
_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*"'
_SAMPLE: Final = re.compile(
    rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{((?:{_LABEL}(?:,{_LABEL})*)?,?)\}})? "
    r"([+-]?(?:Inf|NaN|[0-9][0-9.eE+-]*))( -?[0-9]+)?"
)
_TYPES: Final = frozenset({"counter", "gauge", "histogram", "summary", "untyped"})
_SUFFIXES: Final = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


class Exposition:
    """Families in the order in which they first came."""

    def __init__(self) -> None:
        self._types: dict[str, str] = {}
        self._help: dict[str, str] = {}
        self._samples: dict[str, list[str]] = {}

    def add(self, text: str, labels: str = "") -> None:
        r"""Take in one exposition whole, or nothing of it.

        Args:
            text: of format 0.0.4. labels: to be added to each sample, as ``reader="7"``; the text has none of them.

        Raises:
            InvalidArgument: it is not well formed, or a family has another type than in one before.
        """
        found = list(_parse(text))
        for name, type_, _, _ in found:
            if self._types.get(name, type_) != type_:
                raise InvalidArgument(f"{name} is a {type_} here, and a {self._types[name]} elsewhere")
        for name, type_, help_, samples in found:
            self._types.setdefault(name, type_)
            self._help.setdefault(name, help_)
            self._samples.setdefault(name, []).extend(_with_labels(sample, labels) for sample in samples)

    def render(self) -> bytes:
        """Return all of it as one."""
        lines = []
        for name, type_ in self._types.items():
            lines += [f"# HELP {name} {self._help[name]}".rstrip(), f"# TYPE {name} {type_}", *self._samples[name]]
        return "".join(f"{line}\n" for line in lines).encode()


def _parse(text: str) -> Iterable[tuple[str, str, str, list[str]]]:
    """Return (name, type, help, samples) of each family. Raises InvalidArgument."""
    families: dict[str, tuple[str, str, list[str]]] = {}
    help_, current = {}, ""
    for line in text.split("\n"):  # not at whatever else Unicode calls an end of a line
        comment = _COMMENT.fullmatch(line)
        if comment is not None and comment[1] == "HELP":
            help_[comment[2]] = comment[3] or ""
        elif comment is not None:
            current = comment[2]
            if comment[3] not in _TYPES or current in families:
                raise InvalidArgument(f"'{line}' is no type, or comes twice")
            families[current] = (comment[3], help_.get(current, ""), [])
        elif line and not line.startswith("#"):
            sample = _SAMPLE.fullmatch(line)
            type_ = families[current][0] if current in families else ""
            names = {current, *(current + suffix for suffix in _SUFFIXES.get(type_, ()))}
            if sample is None or current not in families or sample[1] not in names:
                raise InvalidArgument(f"'{line[:100]}' is no sample of the family before it")
            families[current][2].append(line)
    return [(name, type_, text, samples) for name, (type_, text, samples) in families.items()]


def _with_labels(sample: str, labels: str) -> str:
    if not labels:
        return sample
    match = _SAMPLE.fullmatch(sample)
    assert match is not None
    known = f"{match[2].rstrip(',')}," if match[2] else ""
    return f"{match[1]}{{{known}{labels}}} {match[3]}{match[4] or ''}"
