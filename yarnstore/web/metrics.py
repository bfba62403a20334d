"""`/metrics`: the statistics of the store and its state, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric

from yarnstore import Store


class _Collector:
    """The state of a store at the time of each request."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        yield from self._counted()
        yield from self._sizes()
        yield from self._registries()
        installed = GaugeMetricFamily(
            "ystore_installed_version", "1 for each installed version", labels=("model", "version", "variant")
        )
        for item in self._store.list_installed_models():
            installed.add_metric((item.model, item.version, item.variant), 1)
        yield installed

    def _counted(self) -> Iterator[Metric]:
        found = self._store.stats()
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

    def _sizes(self) -> Iterator[Metric]:
        status = self._store.status()
        sizes = GaugeMetricFamily("ystore_store_bytes", "Size of the store by part", labels=("part",))
        sizes.add_metric(("packs",), status.stored_bytes)
        sizes.add_metric(("files",), status.file_bytes)
        sizes.add_metric(("unused",), status.unused_bytes)
        yield sizes
        yield GaugeMetricFamily("ystore_free_bytes", "Free disk space", value=status.free_bytes)
        yield GaugeMetricFamily("ystore_versions", "Stored versions", value=status.versions)

    def _registries(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "ystore_registry_age_seconds", "Time since a registry was last read", labels=("registry",)
        )
        mirrors = GaugeMetricFamily(
            "ystore_mirror_up", "Whether an address of a registry last worked", labels=("registry", "mirror")
        )
        for info in self._store.list_registries():
            if info.fetched_ms:
                age.add_metric((info.name,), max(0.0, time.time() - info.fetched_ms / 1000))
            for place, mirror in enumerate(info.mirrors):
                mirrors.add_metric((info.name, str(place)), 0 if mirror.fault else 1)
        yield from (age, mirrors)


def metrics(store: Store) -> bytes:
    """Return the metrics of a store in the text format of Prometheus.  Raises: IntegrityError if it is
    damaged."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(store))
    return generate_latest(registry)
