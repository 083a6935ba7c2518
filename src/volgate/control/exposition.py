"""Joining Prometheus expositions into one that is well formed: every family once, with one HELP and one TYPE. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from volgate.errors import InvalidArgument

_COMMENT: Final = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*)(?: (.*))?")
_LABEL: Final = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\.)*"'
_NAME_OF_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\\n]|\\.)*"')
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
        self._series: set[str] = set()

    def add(self, text: str, labels: Mapping[str, str] = MappingProxyType({})) -> None:
        """Take in one exposition whole, or nothing of it.

        Args:
            text: of format 0.0.4. labels: to be added to each sample; their values need no escapes.

        Raises:
            InvalidArgument: it is not well formed, has such labels itself, has a series that is there already, or a
                family of another type than before.
        """
        found = [
            (name, type_, help_, [_with_labels(sample, labels) for sample in samples])
            for name, type_, help_, samples in _parse(text)
        ]
        series = [sample.rpartition("}")[0] or sample.split(" ")[0] for *_, samples in found for sample in samples]
        if len(series) != len(set(series)) or self._series & set(series):
            raise InvalidArgument("a series comes twice")
        for name, type_, _, _ in found:
            if self._types.get(name, type_) != type_:
                raise InvalidArgument(f"{name} is a {type_} here, and a {self._types[name]} elsewhere")
        self._series.update(series)
        for name, type_, help_, samples in found:
            self._types.setdefault(name, type_)
            self._help.setdefault(name, help_)
            self._samples.setdefault(name, []).extend(samples)

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


def _with_labels(sample: str, labels: Mapping[str, str]) -> str:
    match = _SAMPLE.fullmatch(sample)
    assert match is not None
    known = _NAME_OF_LABEL.findall(match[2] or "")
    if len({*known, *labels}) != len(known) + len(labels):
        raise InvalidArgument(f"'{sample[:100]}' has a label twice, or one that is not its own")
    all_ = [*filter(None, [(match[2] or "").rstrip(",")]), *(f'{name}="{value}"' for name, value in labels.items())]
    return f"{match[1]}{{{','.join(all_)}}} {match[3]}{match[4] or ''}" if all_ else sample
