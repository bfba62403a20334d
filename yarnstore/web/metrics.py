"""`/metrics`: the statistics of the store and its state, for Prometheus.

They are in parts.  A part that cannot be read, such as the sizes of a damaged store, is missing, which
`ystore_readable` says; what is expensive is read again when the store has changed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from yarnstore import Store
from yarnstore.errors import ConfigError, IntegrityError, YarnstoreError
from yarnstore.results import InstalledModel
from yarnstore.web.service import Service

# The largest age of values that no mark covers, such as free disk space.
KEPT_S = 60.0


class Metrics:
    """The metrics of one service.  Safe to use from several threads."""

    def __init__(self, service: Service, clock: Callable[[], float] = time.monotonic) -> None:
        self._service = service
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, float, list[Metric]]] = {}

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus.

        Raises: ConflictError if another store has the path of the service's store.
        """
        service = self._service
        with self._lock:
            readable = GaugeMetricFamily(
                "ystore_readable", "Whether a part of the metrics could be read", labels=("part",)
            )
            try:
                store = service.store
                readable.add_metric(("settings",), 1)
            except ConfigError:
                store = service.last_store
                readable.add_metric(("settings",), 0)
            parts: dict[str, Callable[[], list[Metric]]] = {
                "operations": lambda: self._cached("operations", lambda: _operations(store)),
                "sizes": lambda: self._cached("sizes", lambda: _sizes(store)),
                "registries": lambda: list(_registries(store)),
                "installed": lambda: list(_installed(service.installed.rows(store))),
            }
            found: list[Metric] = [readable]
            for part, read in parts.items():
                try:
                    found += read()
                    readable.add_metric((part,), 1)
                except YarnstoreError:
                    readable.add_metric((part,), 0)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Found(found))
        return generate_latest(registry)

    def _cached(self, part: str, read: Callable[[], Iterable[Metric]]) -> list[Metric]:
        """Return the cached part, unless the store has changed."""
        mark, now_s = self._service.contents_mark(), self._clock()
        kept = self._kept.get(part)
        if kept is not None and kept[0] == mark and now_s - kept[1] < KEPT_S:
            return kept[2]
        self._kept.pop(part, None)
        found = list(read())
        self._kept[part] = (mark, now_s, found)
        return found


class _Found(Collector):
    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        return self._found


def _installed(models: list[InstalledModel]) -> Iterator[Metric]:
    installed = GaugeMetricFamily(
        "ystore_installed_version", "1 for each installed version", labels=("model", "version", "variant")
    )
    for item in models:
        installed.add_metric((item.model, item.version, item.variant), 1)
    yield installed


def _operations(store: Store) -> Iterator[Metric]:
    found = store.stats()
    yield CounterMetricFamily("ystore_downloaded_bytes", "Bytes downloaded", value=found.download_bytes)
    yield CounterMetricFamily(
        "ystore_model_bytes", "Size of the versions downloaded, as plain files", value=found.size_bytes
    )
    yield CounterMetricFamily(
        "ystore_reused_bytes", "The part of it that was stored before", value=found.reused_bytes
    )
    took = SummaryMetricFamily(
        "ystore_operation_seconds", "Time of operations that were done", labels=("operation",)
    )
    failures = CounterMetricFamily("ystore_failures", "Failed operations", labels=("operation", "error"))
    for item in found.operations:
        took.add_metric((item.operation,), item.count - item.failed, item.seconds)
    for failure in found.failures:
        failures.add_metric((failure.operation, failure.error), failure.count)
    yield from (took, failures)


def _sizes(store: Store) -> Iterator[Metric]:
    status = store.status()
    if status.damaged:
        raise IntegrityError("the store", why="has refs or manifests that cannot be read")
    sizes = GaugeMetricFamily("ystore_store_bytes", "Size of the store by part", labels=("part",))
    sizes.add_metric(("packs",), status.stored_bytes)
    sizes.add_metric(("files",), status.file_bytes)
    sizes.add_metric(("unused",), status.unused_bytes)
    yield sizes
    yield GaugeMetricFamily("ystore_free_bytes", "Free disk space", value=status.free_bytes)
    yield GaugeMetricFamily("ystore_versions", "Stored versions", value=status.versions)


def _registries(store: Store) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "ystore_registry_age_seconds", "Time since a registry was last read", labels=("registry",)
    )
    mirrors = GaugeMetricFamily(
        "ystore_mirror_up", "Whether an address of a registry last worked", labels=("registry", "mirror")
    )
    for info in store.list_registries():
        if info.fetched_ms:
            age.add_metric((info.name,), max(0.0, time.time() - info.fetched_ms / 1000))
        for place, mirror in enumerate(info.mirrors):
            mirrors.add_metric((info.name, str(place)), 0 if mirror.fault else 1)
    yield from (age, mirrors)
