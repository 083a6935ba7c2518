"""``volgate top``: what all mounts of this host are doing, refreshed until interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import click

from volgate.cli.mounts import find_all
from volgate.core.sizes import format_size

_WIDE: Final = 200
"""Columns of a table that goes to a file or a pipe, so that no cell is folded."""
_WITH_MEDIAN, _WITH_BUSIEST = 100, 130
"""Columns of a terminal from which these are shown; what is narrower needs its room for mount points."""


@click.command()
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between.")
@click.option("--once", is_flag=True, help="Print one table of one interval and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an interval and mount, a line each.")
def top(interval: float, once: bool, as_json: bool) -> None:
    """Show what all mounts are doing, live.

    That is requests and bytes a second, latencies, usage against the limit, and the oldest request under way; 'q'
    ends it; without a terminal one table is printed. Latencies are of the last interval, as powers of two: '<=64us'
    means between 32 and 64 microseconds. What the kernel answers from its own caches does not come by here.

    \b
    volgate top
    volgate top --once --interval 10
    volgate top --json >>samples
    """
    if as_json or once or not sys.stdout.isatty():
        _print(interval, once=once or not as_json, as_json=as_json)
    else:
        _show_live(interval)


def _print(interval_s: float, *, once: bool, as_json: bool) -> None:
    from rich.console import Console

    before = _sample()
    while True:
        time.sleep(interval_s)
        after = _sample()
        rows = _compare(before, after, interval_s)
        if as_json:
            for row in rows:
                click.echo(json.dumps(row))
        else:
            console = Console()
            console.width = console.width if console.is_terminal else _WIDE
            console.print(_table(rows, console.width))
        if once:
            return
        before = after


def _show_live(interval_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console, before = Console(), _sample()
    first = _table(_compare(before, before, interval_s), console.width)
    with _keys() as wait_key, Live(first, console=console, screen=True, auto_refresh=False) as live:
        live.refresh()
        with contextlib.suppress(KeyboardInterrupt):
            while wait_key(interval_s) != b"q":
                after = _sample()
                live.update(_table(_compare(before, after, interval_s), console.width), refresh=True)
                before = after


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Yield what waits for a key, so many seconds; b"" where none came. Keys are not echoed meanwhile."""
    import termios
    import tty

    terminal = sys.stdin.fileno()

    def wait_key(wait_s: float) -> bytes:
        if not os.isatty(terminal):
            time.sleep(wait_s)
        elif select.select([terminal], [], [], wait_s)[0]:
            return os.read(terminal, 1) or b"q"  # the terminal is gone
        return b""

    if not os.isatty(terminal):
        yield wait_key
        return
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield wait_key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _sample() -> dict[str, dict[str, Any]]:
    return {str(mount["mount_point"] or mount["volume_id"]): mount for mount in find_all()}


def _compare(
    before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], interval_s: float
) -> list[dict[str, Any]]:
    """Return one row a mount: what happened between two samples."""
    rows = []
    for place, mount in sorted(after.items()):
        statistics, known = mount.get("statistics", {}), before.get(place, {}).get("statistics", {})
        latencies, earlier = statistics.get("latencies", {}), known.get("latencies", {})
        operations = {name: _difference(now, earlier.get(name)) for name, now in latencies.items()}
        busiest = sorted(operations, key=lambda name: -sum(operations[name]))[:3]
        counts = [sum(column) for column in zip(*operations.values(), strict=True)]
        rows.append(
            {
                "volume_id": mount["volume_id"],
                "mount_point": mount["mount_point"],
                "state": mount["state"],
                "requests_per_s": round(sum(counts) / interval_s, 1),
                "read_bytes_per_s": _rate("read_bytes", statistics, known, interval_s),
                "written_bytes_per_s": _rate("written_bytes", statistics, known, interval_s),
                "median_us": _quantile(counts, 0.5),
                "p99_us": _quantile(counts, 0.99),
                "busiest": {
                    name: round(sum(operations[name]) / interval_s, 1) for name in busiest if sum(operations[name])
                },
                "in_flight": statistics.get("in_flight", 0),
                "oldest_request_s": statistics.get("oldest_request_s", 0.0),
                "used_bytes": mount["used_bytes"],
                "quota_bytes": mount["quota_bytes"],
            }
        )
    return rows


def _rate(name: str, now: dict[str, Any], earlier: dict[str, Any], interval_s: float) -> int:
    count, before = int(now.get(name, 0)), int(earlier.get(name, 0))
    return round((count - before if before <= count else count) / interval_s)  # less: the daemon was started anew


def _difference(now: dict[str, Any], earlier: dict[str, Any] | None) -> list[int]:
    counts: list[int] = now["counts"]
    if earlier is None or sum(earlier["counts"]) > sum(counts):  # the daemon was started anew
        return counts
    return [new - old for new, old in zip(counts, earlier["counts"], strict=True)]


def _quantile(counts: list[int], share: float) -> int | None:
    """Return the upper bound, in microseconds, of the bucket that holds this share of the requests."""
    wanted, seen = share * sum(counts), 0
    for exponent, count in enumerate(counts):
        seen += count
        if seen and seen >= wanted:
            return int(2**exponent)
    return None


def _table(rows: list[dict[str, Any]], width: int) -> Any:
    from rich.table import Table

    table = Table(title=f"volgate top  {time.strftime('%H:%M:%S')}", title_justify="left", box=None, pad_edge=False)
    table.add_column("MOUNT POINT", overflow="fold", min_width=11)
    table.add_column("STATE", no_wrap=True)
    shown = ["REQ/S", "READ/S", "WRITE/S", "MEDIAN", "P99", "USED", "OF", "OLDEST", "BUSIEST"]
    if width < _WITH_BUSIEST:
        shown.remove("BUSIEST")
    if width < _WITH_MEDIAN:
        shown.remove("MEDIAN")
    for name in shown:
        last = name == "BUSIEST"
        table.add_column(name, justify="left" if last else "right", no_wrap=not last, overflow="fold")
    for row in rows:
        known = row["used_bytes"] is not None
        cells = {
            "REQ/S": f"{row['requests_per_s']:g}",
            "READ/S": format_size(row["read_bytes_per_s"]) if row["read_bytes_per_s"] else "-",
            "WRITE/S": format_size(row["written_bytes_per_s"]) if row["written_bytes_per_s"] else "-",
            "MEDIAN": _time(row["median_us"]),
            "P99": _time(row["p99_us"]),
            "USED": format_size(row["used_bytes"]) if known else "-",
            "OF": format_size(row["quota_bytes"]) if known else "-",
            "OLDEST": f"{row['oldest_request_s']:.1f} s" if row["in_flight"] else "-",
            "BUSIEST": ", ".join(f"{name} {rate:g}" for name, rate in row["busiest"].items()),
        }
        place, style = str(row["mount_point"] or row["volume_id"]), "" if row["state"] == "ready" else "bold red"
        table.add_row(place, row["state"], *[cells[name] for name in shown], style=style)
    return table


def _time(microseconds: int | None) -> str:
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"<={microseconds}us"
    return f"<={microseconds / 1000:.0f}ms" if microseconds < 1_000_000 else f"<={microseconds / 1e6:.0f}s"
