"""What was measured, and the tables of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import attrs

LOADED = 0.3
"""A figure is marked where others took more than this share of a core meanwhile."""


@attrs.frozen
class Measurement:
    """One figure. Attributes:
    value: None where there is none, for the reason that ``error`` names.
    elapsed_s, daemon_cpu_s, server_cpu_s, other_cpu_s: until the objects stood; other: of what is no part of the bench.
    """

    network: str
    row: str
    mount: str
    round: int
    unit: str
    value: float | None
    error: str = ""
    elapsed_s: float = 0
    daemon_cpu_s: float = 0
    server_cpu_s: float = 0
    other_cpu_s: float = 0
    peak_rss_bytes: int = 0


def tables(measurements: list[Measurement]) -> Iterator[str]:
    """Yield the lines of two tables a network, in Markdown."""
    for network in dict.fromkeys(m.network for m in measurements):
        found = [m for m in measurements if m.network == network]
        mounts = list(dict.fromkeys(m.mount for m in found))
        groups: dict[str, dict[str, list[Measurement]]] = {}
        for m in [*found, *_peaks(found)]:
            groups.setdefault(m.row, {}).setdefault(m.mount, []).append(m)
        yield from _table(network, ["row", "unit", *mounts], [_figures(row, groups[row], mounts) for row in groups])
        rows = [row for row in groups if row != "peak-rss" and not row.endswith("-durable")]
        head = ["row", *(f"{mount}: daemon / server CPU s" for mount in mounts)]
        yield from _table(network, head, [[row, *(_cpu(groups[row].get(m, [])) for m in mounts)] for row in rows])


def _table(title: str, head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield from (f"### {title}", "")
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""


def _peaks(found: list[Measurement]) -> list[Measurement]:
    peaks: dict[tuple[str, int], int] = {}
    for m in found:
        peaks[m.mount, m.round] = max(m.peak_rss_bytes, peaks.get((m.mount, m.round), 0))
    network = found[0].network
    return [
        Measurement(network, "peak-rss", mount, number, "MB", peak / 1e6)
        for (mount, number), peak in peaks.items() if peak
    ]  # fmt: skip


def _figures(row: str, by_mount: dict[str, list[Measurement]], mounts: list[str]) -> list[str]:
    unit = next(iter(by_mount.values()))[0].unit
    less_is_better = unit in ("s", "MB")
    middles = {mount: _median([m.value for m in found]) for mount, found in by_mount.items()}
    known = [middle for middle in middles.values() if middle is not None]
    best = (min if less_is_better else max)(known, default=None)
    cells = [row, unit]
    for mount in mounts:
        found, middle = by_mount.get(mount, []), middles.get(mount)
        texts = []
        if middle is not None and best is not None:
            values = [m.value for m in found if m.value is not None]
            spread = f" ({_number(min(values))}..{_number(max(values))})" if len(values) > 1 else ""
            mark = "~" if any(m.other_cpu_s > LOADED * m.elapsed_s for m in found if m.value is not None) else ""
            ratio = middle / best if less_is_better else best / middle
            texts.append(f"{_number(middle)}{mark}{spread} x{ratio:.2f}")
        texts += dict.fromkeys(m.error for m in found if m.error)
        cells.append(", ".join(texts) or "-")
    return cells


def _cpu(found: list[Measurement]) -> str:
    measured = [m for m in found if m.value is not None]
    if not measured:
        return "-"
    daemon, server = ([getattr(m, f"{who}_cpu_s") for m in measured] for who in ("daemon", "server"))
    return f"{statistics.median(daemon):.2f} / {statistics.median(server):.2f}"


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
