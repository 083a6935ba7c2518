"""/metrics of the host: the control daemon's own figures, and those of every mount that answers in time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

from volgate import paths
from volgate.control.aside import Aside
from volgate.control.door import DoorStatistics
from volgate.control.exposition import Exposition
from volgate.control.mounts import READ_ONLY, find_sockets
from volgate.control.owners import Owners
from volgate.dto.validation import VOLUME_ID
from volgate.errors import InvalidArgument, NotMounted

SCRAPE_S: Final = 5.0
_OWN: Final = b"volgate_control_"
_MAX_BYTES: Final = 8 << 20
"""Of one mount; it may be any user's."""
_VERSION: Final = version("volgate")


class Scraper:
    """Asks all mounts for their metrics.

    Args:
        owners: who asks. aside: threads to look for sockets in. statistics: of the door.
    """

    def __init__(self, owners: Owners, aside: Aside, statistics: DoorStatistics) -> None:
        self._owners = owners
        self._aside = aside
        self._statistics = statistics

    async def scrape(self) -> bytes:
        """Return one exposition. A mount that does not answer costs its own series, which ``..._scrape_up`` tells."""
        sockets = await self._aside.call(find_sockets)
        answers = await self._owners.fetch_all(sockets, "/metrics", timeout_s=SCRAPE_S, max_bytes=_MAX_BYTES)
        merged, up = Exposition(), []
        for socket, answer in sorted(answers, key=lambda found: (bool(_user_of(found[0])), found[0])):
            volume_id = READ_ONLY.sub("", socket.stem)
            if isinstance(answer, NotMounted) or not VOLUME_ID.fullmatch(volume_id):
                continue  # it ended: its socket is stale, or was there a moment ago; or it is no mount's
            reader = socket.stem.removeprefix(f"{volume_id}.ro-") if volume_id != socket.stem else ""
            labels = {name: value for name, value in (("reader", reader), ("user", _user_of(socket))) if value}
            good = isinstance(answer, bytes) and _add(merged, answer, labels)
            up.append((volume_id, reader, _user_of(socket), good))
        merged.add(self._render(up).decode())
        return merged.render()

    def _render(self, up: list[tuple[str, str, str, bool]]) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self._statistics, up))
        return generate_latest(registry)


def _user_of(socket: Path) -> str:
    """Return the id of the user whose mount it is, "" of one of ours. Others say what they like: ours come first."""
    return "" if socket.parent == paths.runtime_directory() else socket.parent.parent.name


def _add(merged: Exposition, content: bytes, labels: Mapping[str, str]) -> bool:
    if _OWN in content:
        return False
    try:
        merged.add(content.decode(), labels)
    except (InvalidArgument, UnicodeDecodeError):
        return False
    return True


class _Collector:
    """The control daemon's own figures as metric families."""

    def __init__(self, statistics: DoorStatistics, up: list[tuple[str, str, str, bool]]) -> None:
        self._statistics = statistics
        self._up = up

    def collect(self) -> Iterator[Metric]:
        build = InfoMetricFamily("volgate_control_build", "The version of the control daemon.")
        build.add_metric([], {"version": _VERSION})
        yield build
        up = GaugeMetricFamily(
            "volgate_control_scrape_up",
            "1 where a mount gave its metrics in time; reader: process of a read-only one; user: another user's.",
            labels=["volume", "reader", "user"],
        )
        for volume_id, reader, user, good in self._up:
            up.add_metric([volume_id, reader, user], int(good))
        yield up
        requests = CounterMetricFamily(
            "volgate_control_requests", "Requests answered.", labels=["method", "route", "status"]
        )
        for (method, route, status), count in sorted(self._statistics.answered.items()):
            requests.add_metric([method, route, str(status)], count)
        yield requests
        seconds = CounterMetricFamily(
            "volgate_control_request_seconds", "How long they took altogether.", labels=["method", "route"]
        )
        for (method, route), total_s in sorted(self._statistics.total_s.items()):
            seconds.add_metric([method, route], total_s)
        yield seconds
        in_flight = GaugeMetricFamily("volgate_control_inflight", "Requests under way.")
        in_flight.add_metric([], self._statistics.in_flight)
        yield in_flight
