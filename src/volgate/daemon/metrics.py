"""/metrics: plain counters, rendered when they are asked for. Names: volgate_*, label volume.

Durations are kept by powers of two microseconds (``fuse.door.Latency``), so those are the histograms' bounds too.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from volgate.fuse.door import Latency
    from volgate.fuse.session import SessionStatistics
    from volgate.volume.volume import Volume

_VERSION: Final = version("volgate")
_FIRST_BUCKET: Final = 4
_LAST_BUCKET: Final = 26


class MountCollector:
    """One mount's figures as metric families."""

    def __init__(self, volume: Volume, statistics: SessionStatistics, *, ready: bool) -> None:
        self._volume = volume
        self._statistics = statistics
        self._ready = ready

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        volume_id = self._volume.identity.volume_id
        statistics, quota = self._statistics, self._volume.gate.info()
        requests = HistogramMetricFamily(
            "volgate_fuse_request_duration_seconds", "Requests by operation and duration.", labels=["volume", "op"]
        )
        for operation, latency in sorted(statistics.requests.items()):
            requests.add_metric([volume_id, operation], _buckets(latency), latency.total_s)
        failed = CounterMetricFamily("volgate_fuse_errors", "Answers by errno.", labels=["volume", "errno"])
        for errno_name, count in sorted(statistics.errors.items()):
            failed.add_metric([volume_id, errno_name], count)
        yield requests
        yield failed
        gauges: list[tuple[str, str, float | None]] = [
            ("volgate_ready", "1 while the mount serves as it should.", int(self._ready)),
            ("volgate_fuse_inflight", "Requests under way that can wait.", statistics.in_flight),
            ("volgate_fuse_waiting", "Requests that the kernel holds, read or not.", statistics.waiting),
            ("volgate_oldest_inflight_seconds", "Age of the oldest request under way.", statistics.oldest_request_s),
            ("volgate_inodes_in_use", "Inodes the kernel or an open file refers to.", statistics.inodes),
            ("volgate_open_files", "Open regular files.", statistics.open_files),
            ("volgate_quota_used_bytes", "Logical bytes charged.", quota.used_bytes),
            ("volgate_quota_limit_bytes", "Limit; absent when unlimited.", quota.quota_bytes),
            ("volgate_quota_used_inodes", "Inodes charged.", quota.file_count),
            ("volgate_quota_limit_inodes", "Limit; absent when unlimited.", quota.quota_inodes),
            *_of_snapshots(self._volume),
        ]
        for direction, count in (("read", statistics.read_bytes), ("written", statistics.written_bytes)):
            passed = CounterMetricFamily(
                f"volgate_fuse_{direction}_bytes", f"Bytes of content {direction}.", labels=["volume"]
            )
            passed.add_metric([volume_id], count)
            yield passed
        denied = CounterMetricFamily("volgate_quota_denied", "Requests refused for the limit.", labels=["volume"])
        denied.add_metric([volume_id], self._volume.gate.denied)
        yield denied
        yield from _of_storage(self._volume)
        build = InfoMetricFamily("volgate_build", "The version that serves.", labels=["volume"])
        build.add_metric([volume_id], {"version": _VERSION})
        yield build
        for name, help_text, value in gauges:
            family = GaugeMetricFamily(name, help_text, labels=["volume"])
            if value is not None:
                family.add_metric([volume_id], value)
            yield family


def _of_storage(volume: Volume) -> Iterator[Metric]:
    """Yield what a backend that keeps changes back says; nothing of others."""
    report = volume.backend.report()
    if report is None:
        return
    volume_id = volume.identity.volume_id
    gauges = [
        ("backlog_files", "Changes that the storage does not have, refused ones included.", report.backlog_files),
        ("backlog_bytes", "Content that the storage does not have.", report.backlog_bytes),
        ("backlog_oldest_seconds", "Age of the oldest change that waits to be stored.", report.oldest_s),
        ("refused_files", "Changes that the storage refuses for good.", report.refused),
        ("cache_bytes", "Clean content on local disk.", report.cached_bytes),
        ("cache_limit_bytes", "The most of it.", report.max_cached_bytes),
        ("cache_lacking_bytes", "What must be freed on the local disk before writes pass.", report.cache_lacking_bytes),
        ("staged_bytes", "Content on local disk that is not stored yet.", report.staged_bytes),
        ("staged_limit_bytes", "The most of it.", report.max_staged_bytes),
    ]
    for name, help_text, value in gauges:
        gauge = GaugeMetricFamily(f"volgate_{name}", help_text, labels=["volume"])
        gauge.add_metric([volume_id], value)
        yield gauge
    counters = [
        ("stored_bytes", "Content that was stored.", report.stored_bytes),
        ("cache_hits", "Reads answered from local disk.", report.cache_hits),
        ("cache_misses", "Reads that local disk could not answer.", report.cache_misses),
    ]
    for name, help_text, value in counters:
        counter = CounterMetricFamily(f"volgate_{name}", help_text, labels=["volume"])
        counter.add_metric([volume_id], value)
        yield counter
    requests = CounterMetricFamily(
        "volgate_store_requests", "Requests made to the storage.", labels=["volume", "operation"]
    )
    for operation, count in sorted(report.requests.items()):
        requests.add_metric([volume_id, operation], count)
    yield requests
    lease = GaugeMetricFamily("volgate_lease", "1 for the state of the lease.", labels=["volume", "state"])
    for state in ("held", "fenced", "lost", "none"):
        lease.add_metric([volume_id, state], int(state == report.lease))
    yield lease


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    """Return (upper bound in seconds, requests up to it), cumulative; bounds from 16 us to 67 s."""
    buckets, total = [], sum(latency.counts[:_FIRST_BUCKET])
    for exponent in range(_FIRST_BUCKET, _LAST_BUCKET + 1):
        total += latency.counts[exponent]
        buckets.append((repr(2**exponent / 1e6), float(total)))
    return [*buckets, ("+Inf", float(latency.count))]


def render(volume: Volume, statistics: SessionStatistics, *, ready: bool) -> bytes:
    """Return the exposition of one mount; ``ready``: it serves as it should."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MountCollector(volume, statistics, ready=ready))
    return generate_latest(registry)


def _of_snapshots(volume: Volume) -> list[tuple[str, str, float | None]]:
    allowance = volume.snapshots.allowance
    if allowance is None:
        return []
    return [
        ("volgate_snapshot_kept_bytes", "Logical bytes that snapshots keep.", allowance.kept_bytes),
        ("volgate_snapshot_limit_bytes", "Limit of it; absent when unlimited.", allowance.limit_bytes),
    ]
