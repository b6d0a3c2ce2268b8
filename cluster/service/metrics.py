"""Counters and gauges for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Seconds; a page should take a quarter of one at most.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("enumerator_requests", "Requests answered.", labels, registry=self._registry)
        self._seconds = Histogram(
            "enumerator_request_seconds",
            "Seconds from a request to the end of its answer.",
            ("route",),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._gauges = {
            name: Gauge(f"enumerator_{name}", text, registry=self._registry)
            for name, text in {
                "readers_busy": "Processes that answer a query now, or are being replaced.",
                "runs": "Campaigns that this service runs now.",
                "catalogue_minima": "Distinct minima stored.",
                "catalogue_starts": "Starts stored.",
                "catalogue_starts_unfinished": "Starts stored that did not finish.",
            }.items()
        }

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is the pattern of its path."""
        method = method if method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self, **gauges: float) -> bytes:
        """All metrics in the text format, with the present values of some gauges."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        return generate_latest(self._registry)
