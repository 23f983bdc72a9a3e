"""The Open Inference Protocol over gRPC (extra [grpc]), with the models, limits, keys and metrics of /v2.

The messages are tritonclient's: the protocol's own with Triton's additions.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from xclip_runtime._version import __version__
from xclip_runtime.errors import MissingExtraError, TensorError, UnknownModelError
from xclip_runtime.serve.api_keys import key_in
from xclip_runtime.serve.connections import grpc_options
from xclip_runtime.serve.error_responses import describe, outcome_of
from xclip_runtime.serve.inference_protocol.codec import InferRequest, Input, RequestedOutput
from xclip_runtime.serve.inference_protocol.models import SERVER, VERSION, Models
from xclip_runtime.serve.logs import request_id
from xclip_runtime.serve.metrics import CLIENT_GONE
from xclip_runtime.serve.middleware import log_request, safe_id
from xclip_runtime.serve.request import Deadline

try:
    import grpc
    from tritonclient.grpc import service_pb2 as messages
except ModuleNotFoundError as error:
    feature = f"gRPC (it lacks {error.name})"
    raise MissingExtraError(feature, "grpc") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from xclip_runtime.serve.engine import Engine

SERVICE = "inference.GRPCInferenceService"

MESSAGE_BYTES = 64 << 20
"""Maximum size of a message; unlike an upload over HTTP it is held in memory as a whole."""

_PROBES = {"ServerLive", "ServerReady"}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class RpcServer:
    """The gRPC server, on the event loop of the HTTP server.

    Args:
        engine: Answers the requests.
        address: Address to bind, HOST:PORT.
        connections: Maximum number of connections.
        tls: Files of the certificate chain and of its key, PEM; None for none.
    """

    def __init__(self, engine: Engine, address: str, *, connections: int, tls: tuple[str, str] | None = None) -> None:
        self._engine = engine
        self._address = address
        self._connections = connections
        self._tls = tls
        self._keys = engine.keys
        self._models = Models(engine)

    async def start(self) -> None:
        """Start to accept requests.

        Raises:
            RuntimeError: The address is in use.
        """
        limit = min(MESSAGE_BYTES, self._engine.settings.limits.upload_bytes)
        # Without port sharing a second server on the same port fails instead of taking some of the requests.
        options = [("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)]
        options += grpc_options(self._engine.settings, self._connections)
        self._server = grpc.aio.server(options=options)
        handlers = self._handlers()
        self._engine.metrics.expect_requests(f"/{SERVICE}/{name}" for name in handlers)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if self._tls is None:
            self._server.add_insecure_port(self._address)
        else:
            chain, key = (Path(file).read_bytes() for file in self._tls)
            self._server.add_secure_port(self._address, grpc.ssl_server_credentials([(key, chain)]))
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Stop accepting requests; answer the admitted ones within `seconds`."""
        await self._server.stop(seconds)

    def _handlers(self) -> dict[str, Any]:
        methods: dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]] = {
            "ServerLive": (messages.ServerLiveRequest, self._server_live),
            "ServerReady": (messages.ServerReadyRequest, self._server_ready),
            "ServerMetadata": (messages.ServerMetadataRequest, self._server_metadata),
            "ModelReady": (messages.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (messages.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": (messages.ModelInferRequest, self._model_infer),
            "RepositoryIndex": (messages.RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": (messages.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (messages.RepositoryModelUnloadRequest, self._unload),
        }
        # On the wire a unary request is a stream of one message. Read as a stream, it waits until it is admitted.
        return {
            name: grpc.stream_unary_rpc_method_handler(
                partial(self._handle, name, method),
                request_deserializer=kind.FromString,
                response_serializer=lambda response: response.SerializeToString(),
            )
            for name, (kind, method) in methods.items()
        }

    async def _handle(
        self,
        name: str,
        method: Callable[[Any], Awaitable[Any]],
        stream: AsyncIterator[Any],
        context: Any,
    ) -> Any:
        start = time.perf_counter()
        metadata = dict(context.invocation_metadata())
        token = request_id.set(safe_id(str(metadata.get("x-request-id", ""))))
        status, outcome = 200, None
        try:
            if name in _PROBES:
                return await method(stream)
            self._keys.check(key_in(metadata))
            with self._engine.clients.place(self._keys.name(key_in(metadata)) or _host(context.peer())):
                return await method(stream)
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        except Exception as error:  # noqa: BLE001 - clients get a status, never a traceback
            (status, text), outcome = describe(error), outcome_of(error)
            await self._abort(context, status, text)
        finally:
            path, seconds = f"/{SERVICE}/{name}", time.perf_counter() - start
            self._engine.metrics.record_request(path, status, outcome, seconds)
            fields = {"method": "gRPC", "path": path}
            log_request(fields, status, seconds, _host(context.peer()), quiet=name in _PROBES)
            request_id.reset(token)

    async def _message(self, stream: AsyncIterator[Any]) -> Any:
        return await Deadline(self._engine.settings.request_timeout).within(_single(stream))

    async def _abort(self, context: Any, status: int, message: str) -> None:
        # Clients with a retry policy wait so long.
        pause = (("grpc-retry-pushback-ms", str(1000 * self._engine.retry_after)),) if status == 503 else ()
        await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), message, pause)

    async def _server_live(self, _: AsyncIterator[Any]) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, _: AsyncIterator[Any]) -> Any:
        return messages.ServerReadyResponse(ready=self._engine.ready)

    async def _server_metadata(self, _: AsyncIterator[Any]) -> Any:
        return messages.ServerMetadataResponse(name=SERVER, version=__version__, extensions=["classification"])

    async def _model_ready(self, stream: AsyncIterator[Any]) -> Any:
        request = await self._message(stream)
        try:
            ready = self._models.get(request.name, request.version or VERSION).ready
        except UnknownModelError:
            ready = False
        return messages.ModelReadyResponse(ready=ready)

    async def _model_metadata(self, stream: AsyncIterator[Any]) -> Any:
        request = await self._message(stream)
        facts = self._models.get(request.name, request.version or VERSION).metadata
        # The messages have no field for the parameters of REST.
        return messages.ModelMetadataResponse(**{name: facts[name] for name in facts if name != "parameters"})

    async def _model_infer(self, stream: AsyncIterator[Any]) -> Any:
        with self._engine.admit():
            deadline = Deadline(self._engine.settings.request_timeout)
            request = await deadline.within(_single(stream))
            with self._models.use(request.model_name, request.model_version or VERSION) as model:
                parsed = await asyncio.to_thread(_parse, request)
                deadline.shorten(parsed.timeout)
                outputs = await deadline.within(model.run(parsed))
        response = messages.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
        for output in outputs:
            response.outputs.add(name=output.requested.name, datatype=output.datatype, shape=output.tensor.shape)
            response.raw_output_contents.append(output.to_bytes())
        return response

    async def _repository_index(self, stream: AsyncIterator[Any]) -> Any:
        request = await self._message(stream)
        index = self._models.index(ready=request.ready)
        return messages.RepositoryIndexResponse(models=index)

    async def _load(self, stream: AsyncIterator[Any]) -> Any:
        request = await self._message(stream)
        await self._models.load(request.model_name)
        return messages.RepositoryModelLoadResponse()

    async def _unload(self, stream: AsyncIterator[Any]) -> Any:
        request = await self._message(stream)
        await self._models.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()


async def _single(stream: AsyncIterator[Any]) -> Any:
    async for message in stream:
        return message
    error = "the request contains no message"
    raise TensorError(error)


def _parse(request: Any) -> InferRequest:
    """Convert a message to an `InferRequest`.

    Raises:
        TensorError: The message does not follow the protocol.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        message = f"{len(request.inputs)} inputs have {len(raw)} raw contents: send one for each"
        raise TensorError(message)
    timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
    return InferRequest(
        id=request.id or None,
        inputs={tensor.name: tensor for tensor in _inputs(request.inputs, raw)},
        outputs=tuple(_requested_output(output) for output in request.outputs),
        binary_outputs=True,
        timeout=timeout / 1e6 if timeout > 0 else math.inf,
    )


def _inputs(tensors: Any, raw: Any) -> Iterator[Input]:
    for number, tensor in enumerate(tensors):
        contents = tensor.contents
        listed = contents.bytes_contents if tensor.datatype == "BYTES" else contents.uint_contents
        data = memoryview(raw[number]) if raw else list(listed)
        yield Input(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _requested_output(output: Any) -> RequestedOutput:
    classes = output.parameters["classification"].int64_param if "classification" in output.parameters else 0
    return RequestedOutput(output.name, binary=True, classes=max(0, classes))


def _host(peer: str) -> str:
    """Return the host of a peer such as ``ipv4:127.0.0.1:40000``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")
