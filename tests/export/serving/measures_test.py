"""What a server counts, read as Prometheus reads it."""

import asyncio

import pytest

pytest.importorskip("aiohttp")
parser = pytest.importorskip("prometheus_client.parser")

from meta_pseudo_labels.export.serving import server  # noqa: E402
from tests.export.serving.limits_test import (  # noqa: E402
    LIMITS,
    SLOW,
    ask,
    body,
    serving,
)


async def counts(session):
    """Samples by name and labels: {("mpl_requests_total", "200"): 1.0}."""
    async with session.get("/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_answers_are_counted_by_status():
    async def run():
        async with serving() as (_, session):
            await ask(session, body(1))
            await ask(session, b"no JSON")
            async with session.get("/v1/models/m") as response:
                assert response.status == 200  # Not a prediction.
            return await counts(session)

    found = asyncio.run(run())
    assert found["mpl_requests_total", "200"] == 1
    assert found["mpl_requests_total", "400"] == 1
    # A refusal takes no time, and would make the server look fast.
    assert found["mpl_request_seconds_count",] == 1
    assert found["mpl_request_seconds_bucket", "+Inf"] == 1
    assert ("mpl_requests_total", "499") not in found
    assert found["mpl_requests_under_way",] == 0


def test_a_full_server_says_so_and_recovers():
    async def run():
        async with serving() as (_, session):
            slow = [
                asyncio.create_task(ask(session, body(SLOW)))
                for _ in range(LIMITS.requests)
            ]
            while (await counts(session))["mpl_requests_under_way",] < len(
                slow
            ):
                await asyncio.sleep(0.05)
            status, _ = await ask(session, body(0))
            assert status == 503
            full = await counts(session)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            while (await counts(session))["mpl_requests_under_way",]:
                await asyncio.sleep(0.05)
            return full, await counts(session)

    full, after = asyncio.run(run())
    assert full["mpl_requests_total", "503"] == 1
    assert full["mpl_requests_under_way",] == LIMITS.requests
    # They left: no answer, no time.
    assert after["mpl_requests_total", "499"] == LIMITS.requests
    assert after["mpl_request_seconds_count",] == 0


def test_an_answer_that_is_not_taken_is_no_refusal(monkeypatch):
    """It was 400, as if the request had been wrong."""

    async def not_taken(self, request, response):
        raise ConnectionResetError("The answer was not taken.")

    monkeypatch.setattr(server._Service, "_send", not_taken)

    async def run():
        async with serving() as (_, session):
            await ask(session, body(1))
            return await counts(session)

    found = asyncio.run(run())
    assert found["mpl_requests_total", "499"] == 1
    assert found["mpl_request_seconds_count",] == 0


def test_two_servers_of_a_process_count_apart():
    async def run():
        async with serving() as (_, one), serving() as (_, other):
            await ask(one, body(1))
            return await counts(one), await counts(other)

    one, other = asyncio.run(run())
    assert one["mpl_request_seconds_count",] == 1
    assert other["mpl_request_seconds_count",] == 0
