"""What a server reports about itself: that it is up, and what it has done."""

import asyncio
import time

import prometheus_client
from aiohttp import hdrs, web

# As in nginx: the client left, or did not take its answer.
CLIENT_LEFT = 499
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """Counts of one server, as Prometheus reads them.

    All are about requests for predictions: mpl_requests_total by status, with
    499 if the client left; mpl_request_seconds for those with status 200 only,
    because refusals, which take no time, would make a full server look fast;
    mpl_requests_under_way is the number now.

    Args:
      under_way: a function that returns the number of requests under way.
    """

    def __init__(self, under_way):
        # Its own: the library's is shared by all servers of a process.
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "mpl_requests",
            "Requests for predictions, by status; 499: the client left.",
            ["status"],
            registry=self._registry,
        )
        self._seconds = prometheus_client.Histogram(
            "mpl_request_seconds",
            "Seconds from a request's head to its answer, status 200 only.",
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
        """Counts what becomes of a request, if it is for a prediction."""
        if not request.path.endswith(":predict"):
            return await handler(request)
        start = time.monotonic()
        try:
            response = await handler(request)
        except asyncio.CancelledError:  # aiohttp raises it if a client left.
            self._requests.labels(str(CLIENT_LEFT)).inc()
            raise
        self._requests.labels(str(response.status)).inc()
        if response.status == 200:
            self._seconds.observe(time.monotonic() - start)
        return response

    async def metrics(self, request):
        """All counts, in Prometheus's text format."""
        del request
        return web.Response(
            body=prometheus_client.generate_latest(self._registry),
            headers={hdrs.CONTENT_TYPE: prometheus_client.CONTENT_TYPE_LATEST},
        )
