"""The HTTP side: what is admitted, what is answered, and with which status.

On aiohttp: it is well kept, bounds a body while it arrives, and holds hundreds
of waiting clients without a thread for each.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging

from aiohttp import hdrs, web

from meta_pseudo_labels.export.serving.models import RefusedInput
from meta_pseudo_labels.export.serving.protocol import (
    BadRequest,
    dump,
    format_response,
    parse_request,
)

_ONE = "/v1/models/{name:[^/:]+}"
_VERSION = _ONE + "/versions/{version:[0-9]+}"
_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What keeps memory bounded, whatever clients send.

    Attributes:
      requests: under way at a time, from the body to the answer that was
        taken; others get 503.
      workers: requests worked on at a time.
      body_bytes: of one request; a larger one gets 413.
      waiting_bytes: of the bodies of all requests under way; others get 503.
      batch: images in one request; more get 400.
      body_seconds: for a body to arrive, else 408; and for the answer to be
        taken, else the connection ends.
    """

    requests: int = 64
    workers: int = 2
    body_bytes: int = 32_000_000
    waiting_bytes: int = 256_000_000
    batch: int = 256
    body_seconds: float = 30.0


def build_app(model, *, name, limits):
    """The server of one model.

    Args:
      model: `models.Model`.
      name: of the model in addresses.
      limits: `Limits`.

    Returns:
      `aiohttp.web.Application`.
    """
    service = _Service(model, name, limits)
    app = web.Application(
        client_max_size=limits.body_bytes, middlewares=[_errors_as_json]
    )
    for path in (_ONE, _VERSION):
        app.router.add_post(path + ":predict", service.predict)
        app.router.add_get(path + "/metadata", service.metadata)
        app.router.add_get(path, service.status)
    app.on_cleanup.append(service.close)
    return app


class _Service:
    def __init__(self, model, name, limits):
        self._model, self._name, self._limits = model, name, limits
        self._pool = concurrent.futures.ThreadPoolExecutor(limits.workers)
        self._requests = self._bytes = 0  # Under way.

    async def close(self, app):
        del app
        self._pool.shutdown()

    async def status(self, request):
        self._check_model(request)
        state = {
            "version": self._model.version,
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return _json({"model_version_status": [state]})

    async def metadata(self, request):
        self._check_model(request)
        return _json(
            {
                "model_spec": {
                    "name": self._name,
                    "signature_name": "",
                    "version": self._model.version,
                },
                "metadata": {
                    "signature_def": {"signature_def": self._model.metadata}
                },
            }
        )

    async def predict(self, request):
        self._check_model(request)
        limits, size = self._limits, request.content_length
        if size is not None and size > limits.body_bytes:
            raise web.HTTPRequestEntityTooLarge(limits.body_bytes, size)
        # In pieces or compressed, it may become as large.
        if size is None or hdrs.CONTENT_ENCODING in request.headers:
            size = limits.body_bytes
        with self._admitted(size):
            try:
                body = await asyncio.wait_for(
                    request.read(), limits.body_seconds
                )
            except asyncio.TimeoutError as error:
                raise web.HTTPRequestTimeout(
                    text="The body did not arrive in time."
                ) from error
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._pool, self._answer, body)
            response = web.Response(
                body=answer, content_type="application/json"
            )
            # Here, so that answers which nobody takes are not without number.
            await _send(request, response, seconds=limits.body_seconds)
        return response

    def _answer(self, body):
        """The bytes that answer a predict request; in a worker's thread."""
        signature, arrays, in_rows = parse_request(
            body, self._model.inputs, max_batch=self._limits.batch
        )
        outputs = self._model.predict(signature, arrays)
        return format_response(outputs, in_rows=in_rows)

    @contextlib.contextmanager
    def _admitted(self, size):
        """Keeps a place among the requests under way."""
        limits = self._limits
        if (
            self._requests >= limits.requests
            or self._bytes + size > limits.waiting_bytes
        ):
            raise web.HTTPServiceUnavailable(
                text="Too many requests are under way; try again.",
                headers={"Retry-After": "1"},
            )
        self._requests += 1
        self._bytes += size
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= size

    def _check_model(self, request):
        """Raises HTTPNotFound for another model than the one that is here."""
        name = request.match_info["name"]
        version = request.match_info.get("version", self._model.version)
        # As text: Python refuses to read numbers of thousands of digits.
        same = version.lstrip("0") == self._model.version.lstrip("0")
        if name != self._name or not same:
            raise web.HTTPNotFound(
                text=f"There is no version {version[:20]} of model "
                f"{name[:40]} here, but version {self._model.version} of "
                f"{self._name}."
            )


async def _send(request, response, *, seconds):
    """Sends an answer, and waits until most of it has been taken.

    Raises:
      ConnectionError: where the client has left, or takes too long.
    """
    await response.prepare(request)
    try:
        await asyncio.wait_for(response.write_eof(), seconds)
    except asyncio.TimeoutError as error:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("The answer was not taken.") from error


@web.middleware
async def _errors_as_json(request, handler):
    try:
        return await handler(request)
    except (BadRequest, RefusedInput) as error:
        return _json({"error": str(error)}, status=400)
    except web.HTTPException as error:
        kept = ("Retry-After", "Allow")
        return _json(
            {"error": error.text or error.reason},
            status=error.status,
            headers={k: v for k, v in error.headers.items() if k in kept},
        )
    except ConnectionError:  # The client left; nobody reads this.
        return _json({"error": "The connection has ended."}, status=400)
    except Exception:  # A fault of ours must not end the others' requests.
        _LOG.exception("A request could not be answered.")
        return _json({"error": "The server failed; see its log."}, status=500)


def _json(content, **settings):
    return web.Response(
        body=dump(content), content_type="application/json", **settings
    )
