"""The HTTP side: what is admitted, what is answered, and with which status.

It uses aiohttp, which is well maintained, bounds a body while it arrives, and
holds hundreds of waiting clients without a thread for each.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import logging

from aiohttp import hdrs, web

from meta_pseudo_labels.export.serving.measures import CLIENT_LEFT, Measures
from meta_pseudo_labels.export.serving.models import RefusedInput
from meta_pseudo_labels.export.serving.protocol import (
    MOST_NUMBERS,
    check_pictures,
    dump,
    format_response,
    parse_request,
)
from meta_pseudo_labels.export.serving.reading import (
    ENCODINGS,
    BadRequest,
    TooLarge,
    inflate,
)

_ONE = "/v1/models/{name:[^/:]+}"
_VERSION = _ONE + "/versions/{version:[0-9]+}"
_LOG = logging.getLogger(__name__)
# Statuses after which a connection ends.
_CLOSING = (400, 408, 413, 415, CLIENT_LEFT)
_LINGERING = 2.0  # Seconds to take what is on its way, so answers are read.
WORKERS = "predicts"  # Prefix of the names of their threads.


@dataclasses.dataclass(frozen=True)
class Limits:
    """What keeps memory bounded, whatever clients send.

    Attributes:
      requests: under way at a time, from the body until the answer has been
        taken; others get 503.
      workers: requests processed at a time.
      body_bytes: of one request, also once it is inflated; a larger one gets
        413.
      waiting_bytes: of the bodies of all requests under way; others get 503.
      batch: images in one request; more get 400.
      numbers: values in the lists of one request; more get 400.
      pixels: of the picture files of one request together, by their headers;
        more get 400.
      body_seconds: for a body to arrive, otherwise 408; and for the answer to
        be taken, otherwise the connection ends.
      finish_seconds: for requests under way when the server is told to stop;
        those without an answer by then get 503.
    """

    requests: int = 64
    workers: int = 2
    body_bytes: int = 32_000_000
    waiting_bytes: int = 256_000_000
    batch: int = 256
    numbers: int = MOST_NUMBERS
    pixels: int = 256_000_000
    body_seconds: float = 30.0
    finish_seconds: float = 15.0


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
    measures = Measures(service.under_way)
    app = web.Application(
        client_max_size=limits.body_bytes,
        middlewares=[measures.count, _errors_as_json],
        handler_args={
            # aiohttp would inflate the rest of a body that was refused.
            "auto_decompress": False,
            "lingering_time": _LINGERING,
            # Nobody waits for the answer to a client that has left.
            "handler_cancellation": True,
        },
    )
    for path in (_ONE, _VERSION):
        app.router.add_post(path + ":predict", service.predict)
        app.router.add_get(path + "/metadata", service.metadata)
        app.router.add_get(path, service.status)
    app.router.add_get("/healthz", service.healthz)
    app.router.add_get("/readyz", service.readyz)
    app.router.add_get("/metrics", measures.metrics)
    app.on_response_prepare.append(_say_it_in_json)
    app.on_shutdown.append(service.finish)
    app.on_cleanup.append(service.close)
    return app


class _Service:
    def __init__(self, model, name, limits):
        self._model, self._name, self._limits = model, name, limits
        self._pool = concurrent.futures.ThreadPoolExecutor(
            limits.workers, thread_name_prefix=WORKERS
        )
        self._requests = self._bytes = 0  # Under way.
        self._ending, self._time_is_up = asyncio.Event(), asyncio.Event()

    async def finish(self, app):
        """Gives requests under way time to finish."""
        del app
        self._ending.set()
        asyncio.get_running_loop().call_later(
            self._limits.finish_seconds, self._time_is_up.set
        )

    async def close(self, app):
        """Ends without waiting for unfinished work: nobody needs it."""
        del app
        self._pool.shutdown(wait=False, cancel_futures=True)

    def under_way(self):
        return self._requests

    async def healthz(self, request):
        """For schedulers: the process answers; if not, they restart it."""
        del request
        return _json({"status": "alive"})

    async def readyz(self, request):
        """For load balancers: whether to send requests here."""
        del request
        if self._ending.is_set():
            return _error(503, "The server is stopping; ask another, or later.")
        return _json({"status": "ready"})

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
        encoding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
        encoding = encoding.strip().lower()
        if encoding not in ENCODINGS:
            raise web.HTTPUnsupportedMediaType(
                text=f"Bodies may be compressed as {', '.join(ENCODINGS)}; got "
                f"{encoding[:40]}."
            )
        # In chunks or compressed, it may become that large.
        if size is None or encoding != "identity":
            size = limits.body_bytes
        with self._admitted(size):
            # aiohttp takes no more of a body once it is told to stop.
            body = await _before(
                self._ending, request.read(), seconds=limits.body_seconds
            )
            work = asyncio.get_running_loop().run_in_executor(
                self._pool, self._answer, body, encoding
            )
            answer = await _before(self._time_is_up, work)
            response = web.Response(
                body=answer, content_type="application/json"
            )
            # Here, so that the number of answers that nobody takes is limited.
            await self._send(request, response)
        return response

    async def _send(self, request, response):
        """Sends an answer, and waits until most of it has been taken.

        Raises:
          ConnectionError: if the client has left, or takes too long.
        """
        await response.prepare(request)
        try:
            await _before(
                self._time_is_up,
                response.write_eof(),
                seconds=self._limits.body_seconds,
            )
        except web.HTTPException as error:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("The answer was not taken.") from error

    def _answer(self, body, encoding):
        """The bytes that answer a predict request; in a worker's thread."""
        limits = self._limits
        body = inflate(body, encoding, most=limits.body_bytes)
        signature, arrays, in_rows = parse_request(
            body,
            self._model.inputs,
            max_batch=limits.batch,
            max_numbers=limits.numbers,
        )
        check_pictures(arrays, max_pixels=limits.pixels)
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
        """Raises HTTPNotFound for any model other than the one served here."""
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


async def _before(event, work, *, seconds=None):
    """The result of some work, if it is there before an event.

    Args:
      event: `asyncio.Event`, of the end of the server.
      work: an awaitable; canceled if it is not waited for.
      seconds: for the client to do its part; None if it has none.

    Raises:
      HTTPServiceUnavailable: if the event came first.
      HTTPRequestTimeout: if the time ran out.
    """
    work = asyncio.ensure_future(work)
    ending = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait(
            (work, ending),
            timeout=seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if work.done():
            return work.result()
    finally:
        ending.cancel()
        work.cancel()
    if event.is_set():
        raise web.HTTPServiceUnavailable(
            text="The server is stopping; ask another, or later.",
            headers={"Retry-After": "1"},
        )
    raise web.HTTPRequestTimeout(text="The body did not arrive in time.")


@web.middleware
async def _errors_as_json(request, handler):
    try:
        return await handler(request)
    except (BadRequest, RefusedInput) as error:
        return _error(400, str(error))
    except TooLarge as error:
        return _error(413, str(error))
    except web.HTTPException as error:
        kept = ("Retry-After", "Allow")
        return _error(
            error.status,
            error.text or error.reason,
            headers={k: v for k, v in error.headers.items() if k in kept},
        )
    except ConnectionError:  # The client left; nobody reads this.
        return _error(CLIENT_LEFT, "The connection has ended.")
    except Exception:  # An error of ours must not end others' requests.
        _LOG.exception("A request could not be answered.")
        return _error(500, "The server failed; see its log.")


async def _say_it_in_json(request, response):
    """Turns what aiohttp answers past the middlewares into JSON."""
    if response.status >= 400 and response.content_type == "text/plain":
        response.body = dump({"error": response.text})
        response.content_type = "application/json"
        response.headers[hdrs.CONTENT_LENGTH] = str(len(response.body))


def _error(status, text, **settings):
    response = _json({"error": text}, status=status, **settings)
    if status in _CLOSING:  # The rest of the request is not waited for.
        response.force_close()
    return response


def _json(content, **settings):
    return web.Response(
        body=dump(content), content_type="application/json", **settings
    )


def speak_json():
    """Makes aiohttp's own answers JSON too, such as to what is not HTTP.

    For a program, not for one server of several: aiohttp has no setting for it.
    """

    def handle_error(self, request, status=500, exc=None, message=None):
        if request.writer.output_size > 0:  # It cannot be taken back.
            raise ConnectionError("The answer has begun.") from exc
        if status >= 500:
            _LOG.error("A request could not be answered.", exc_info=exc)
        text = (message or "The server failed; see its log.").split("\n")[0]
        response = _error(status, text[:200])
        response.force_close()
        return response

    web.RequestHandler.handle_error = handle_error
