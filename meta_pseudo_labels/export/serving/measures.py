"""What a server tells of itself: whether it is there, and what it has done."""

import time

import prometheus_client
from aiohttp import hdrs, web

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """Counts of one server, as Prometheus reads them.

    mpl_requests_total, by status, and mpl_request_seconds are of predictions;
    mpl_requests_under_way is now.

    Args:
      under_way: a function that gives the number of requests under way.
    """

    def __init__(self, under_way):
        # Its own: that of the library is one for all servers of a process.
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "mpl_requests",
            "Requests for predictions that were answered, by status.",
            ["status"],
            registry=self._registry,
        )
        self._seconds = prometheus_client.Histogram(
            "mpl_request_seconds",
            "Seconds from a request's head to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        prometheus_client.Gauge(
            "mpl_requests_under_way",
            "Requests for predictions that have no answer yet.",
            registry=self._registry,
        ).set_function(under_way)

    @web.middleware
    async def count(self, request, handler):
        """Counts what a handler answers, where it predicts."""
        start = time.monotonic()
        response = await handler(request)
        if request.path.endswith(":predict"):
            self._requests.labels(str(response.status)).inc()
            self._seconds.observe(time.monotonic() - start)
        return response

    async def metrics(self, request):
        """All of it, in Prometheus's text format."""
        del request
        return web.Response(
            body=prometheus_client.generate_latest(self._registry),
            headers={hdrs.CONTENT_TYPE: prometheus_client.CONTENT_TYPE_LATEST},
        )
