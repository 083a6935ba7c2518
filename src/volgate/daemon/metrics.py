"""/metrics: plain counters, rendered when they are asked for. Names: volgate_*, label volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from volgate.fuse.session import FuseSession
    from volgate.volume.volume import Volume


class MountCollector:
    """Reads the statistics of one mount at each scrape."""

    def __init__(self, volume: Volume, session: FuseSession) -> None:
        self._volume = volume
        self._session = session

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        volume_id = self._volume.identity.volume_id
        statistics, quota = self._session.statistics(), self._volume.gate.info()
        requests = CounterMetricFamily("volgate_fuse_requests", "Requests by operation.", labels=["volume", "op"])
        for operation, count in sorted(statistics.requests.items()):
            requests.add_metric([volume_id, operation], count)
        failed = CounterMetricFamily("volgate_fuse_errors", "Answers by errno.", labels=["volume", "errno"])
        for name, count in sorted(statistics.errors.items()):
            failed.add_metric([volume_id, name], count)
        yield requests
        yield failed
        gauges: list[tuple[str, str, float | None]] = [
            ("volgate_fuse_inflight", "Requests under way.", statistics.in_flight),
            ("volgate_oldest_inflight_seconds", "Age of the oldest request under way.", statistics.oldest_request_s),
            ("volgate_inodes_in_use", "Inodes the kernel or an open file refers to.", statistics.inodes),
            ("volgate_open_files", "Open regular files.", statistics.open_files),
            ("volgate_quota_used_bytes", "Logical bytes charged.", quota.used_bytes),
            ("volgate_quota_limit_bytes", "Limit; absent when unlimited.", quota.quota_bytes),
            ("volgate_quota_used_inodes", "Inodes charged.", quota.file_count),
            ("volgate_quota_limit_inodes", "Limit; absent when unlimited.", quota.quota_inodes),
            ("volgate_quota_denied", "Requests refused for the limit since the mount.", self._volume.gate.denied),
        ]
        for name, help_text, value in gauges:
            family = GaugeMetricFamily(name, help_text, labels=["volume"])
            if value is not None:
                family.add_metric([volume_id], value)
            yield family


def render(volume: Volume, session: FuseSession) -> bytes:
    """Return the exposition of one mount."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MountCollector(volume, session))
    return generate_latest(registry)
