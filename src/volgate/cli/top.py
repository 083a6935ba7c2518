"""``volgate top``: what all mounts of this host are doing, refreshed until interrupted."""

from __future__ import annotations

import json
import time
from typing import Any, Final

import click

from volgate.cli.mounts import find_all
from volgate.core.sizes import format_size

_WIDE: Final = 200
"""Columns of a table that goes to a file or a pipe, so that no cell is folded."""


@click.command()
@click.option("--interval", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds between.")
@click.option("--once", is_flag=True, help="Print one table of one interval and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object an interval and mount, a line each.")
def top(interval: float, once: bool, as_json: bool) -> None:
    """Show requests a second, their latencies, usage and the oldest request of every mount, live.

    Latencies are of the last interval, as powers of two: '<= 64us' means between 32 and 64 microseconds.
    """
    from rich.console import Console
    from rich.live import Live

    before = _sample()
    if as_json or once:
        while True:
            time.sleep(interval)
            after = _sample()
            rows = _compare(before, after, interval)
            if as_json:
                for row in rows:
                    click.echo(json.dumps(row))
            else:
                console = Console()
                console.width = console.width if console.is_terminal else _WIDE
                console.print(_table(rows))
            if once:
                return
            before = after
    with Live(_table([]), console=Console(), screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(interval)
                after = _sample()
                live.update(_table(_compare(before, after, interval)), refresh=True)
                before = after
        except KeyboardInterrupt:
            return


def _sample() -> dict[str, dict[str, Any]]:
    return {str(mount["mount_point"]): mount for mount in find_all()}


def _compare(
    before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], interval_s: float
) -> list[dict[str, Any]]:
    """Return one row a mount: what happened between two samples."""
    rows = []
    for place, mount in sorted(after.items()):
        latencies = mount.get("statistics", {}).get("latencies", {})
        earlier = before.get(place, {}).get("statistics", {}).get("latencies", {})
        operations = {name: _difference(now, earlier.get(name)) for name, now in latencies.items()}
        busiest = sorted(operations, key=lambda name: -sum(operations[name]))[:3]
        counts = [sum(column) for column in zip(*operations.values(), strict=True)]
        rows.append(
            {
                "volume_id": mount["volume_id"],
                "mount_point": mount["mount_point"],
                "state": mount["state"],
                "requests_per_s": round(sum(counts) / interval_s, 1),
                "median_us": _quantile(counts, 0.5),
                "p99_us": _quantile(counts, 0.99),
                "busiest": {
                    name: round(sum(operations[name]) / interval_s, 1) for name in busiest if sum(operations[name])
                },
                "in_flight": mount.get("statistics", {}).get("in_flight", 0),
                "oldest_request_s": mount.get("statistics", {}).get("oldest_request_s", 0.0),
                "used_bytes": mount["used_bytes"],
                "quota_bytes": mount["quota_bytes"],
            }
        )
    return rows


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


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title=f"volgate top  {time.strftime('%H:%M:%S')}", title_justify="left", box=None, pad_edge=False)
    table.add_column("MOUNT POINT", overflow="fold", min_width=11)
    table.add_column("STATE", no_wrap=True)
    for name in ("REQ/S", "MEDIAN", "P99", "USED", "OF", "OLDEST"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("BUSIEST", overflow="fold")
    for row in rows:
        used = "-" if row["used_bytes"] is None else format_size(row["used_bytes"])
        limit = "-" if row["used_bytes"] is None else format_size(row["quota_bytes"])
        oldest = f"{row['oldest_request_s']:.1f} s" if row["in_flight"] else "-"
        style = "" if row["state"] == "ready" else "bold red"
        busiest = ", ".join(f"{name} {rate:g}" for name, rate in row["busiest"].items())
        table.add_row(
            str(row["mount_point"] or row["volume_id"]), row["state"], f"{row['requests_per_s']:g}",
            _time(row["median_us"]), _time(row["p99_us"]), used, limit, oldest, busiest, style=style,
        )  # fmt: skip
    return table


def _time(microseconds: int | None) -> str:
    if microseconds is None:
        return "-"
    if microseconds < 1000:
        return f"<={microseconds}us"
    return f"<={microseconds / 1000:.0f}ms" if microseconds < 1_000_000 else f"<={microseconds / 1e6:.0f}s"
