"""The Open Inference Protocol over gRPC (extra [grpc]), with the models, limits, keys and metrics of /v2.

The messages are tritonclient's: the protocol's own with Triton's additions.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from xclip_runtime._version import __version__
from xclip_runtime.errors import MissingExtraError, TensorError, UnknownModelError
from xclip_runtime.serve.api_keys import key_in
from xclip_runtime.serve.connections import grpc_options
from xclip_runtime.serve.error_responses import describe, outcome_of
from xclip_runtime.serve.inference_protocol.codec import MAX_TENSORS, InferRequest, RequestedOutput
from xclip_runtime.serve.inference_protocol.models import EXTENSIONS, SERVER, VERSION, Models
from xclip_runtime.serve.inference_protocol.tensors import MAX_NAME, BinaryData, Input, ListedData
from xclip_runtime.serve.logs import request_id
from xclip_runtime.serve.metrics import CLIENT_GONE
from xclip_runtime.serve.middleware import log_request, safe_id
from xclip_runtime.serve.request import Deadline

try:
    import grpc
    from google.protobuf.json_format import ParseDict
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_reflection.v1alpha import reflection
    from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
    from tritonclient.grpc import service_pb2 as messages

    from xclip_runtime.serve.inference_protocol import wire
    from xclip_runtime.serve.inference_protocol.health import HEALTH, Health
except ModuleNotFoundError as error:
    feature = f"gRPC (it lacks {error.name})"
    raise MissingExtraError(feature, "grpc") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.codec import Output

Receive = Callable[[], Coroutine[Any, Any, Any]]
Method = Callable[[Receive], Awaitable[Any]]

_STOP_SECONDS = 0.5

SERVICE = "inference.GRPCInferenceService"

MESSAGE_BYTES = 64 << 20
"""Maximum size of a message; unlike an upload over HTTP it is held in memory as a whole."""

_PROBES = {f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady", f"/{HEALTH}/Check"}
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
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
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
        self._running = 0

    async def start(self) -> None:
        """Start to accept requests.

        Raises:
            RuntimeError: The address is in use.
        """
        limit = min(MESSAGE_BYTES, self._engine.settings.limits.upload)
        # Without port sharing a second server on the same port fails instead of taking some of the requests.
        options = [("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)]
        options += grpc_options(self._engine.settings, self._connections)
        self._server = grpc.aio.server(options=options)
        services = {SERVICE: self._handlers(), HEALTH: self._health_handlers()}
        services[reflection.SERVICE_NAME] = self._reflection_handlers((*services, reflection.SERVICE_NAME))
        self._engine.metrics.expect_requests(f"/{SERVICE}/{name}" for name in services[SERVICE])
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, handlers) for service, handlers in services.items()]
        )
        if self._tls is None:
            self._server.add_insecure_port(self._address)
        else:
            self.load_certificate()
            # Asked at each handshake.
            credentials = grpc.dynamic_ssl_server_credentials(self._certificate, lambda: self._certificate)
            self._server.add_secure_port(self._address, credentials)
        await self._server.start()

    def load_certificate(self) -> None:
        """Read certificate and key anew.

        Raises:
            OSError: A file cannot be read.
        """
        if self._tls is not None:
            chain, key = (Path(file).read_bytes() for file in self._tls)
            self._certificate = grpc.ssl_server_certificate_configuration([(key, chain)])

    async def stop(self, seconds: float) -> None:
        """Stop accepting requests; answer the admitted ones within `seconds`."""
        stopping = asyncio.ensure_future(self._server.stop(seconds))
        # Streams of health and reflection end with their client alone.
        while self._running and not stopping.done():
            await asyncio.sleep(_STOP_SECONDS)
        await self._server.stop(_STOP_SECONDS)
        await stopping

    def _handlers(self) -> dict[str, Any]:
        methods: dict[str, tuple[Any, Method]] = {
            "ServerLive": (messages.ServerLiveRequest, self._server_live),
            "ServerReady": (messages.ServerReadyRequest, self._server_ready),
            "ServerMetadata": (messages.ServerMetadataRequest, self._server_metadata),
            "ModelReady": (messages.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (messages.ModelMetadataRequest, self._model_metadata),
            "ModelConfig": (messages.ModelConfigRequest, self._model_config),
            "ModelStatistics": (messages.ModelStatisticsRequest, self._model_statistics),
            "ModelInfer": (messages.ModelInferRequest, self._model_infer),
            "RepositoryIndex": (messages.RepositoryIndexRequest, self._repository_index),
            "RepositoryModelLoad": (messages.RepositoryModelLoadRequest, self._load),
            "RepositoryModelUnload": (messages.RepositoryModelUnloadRequest, self._unload),
        }
        return {name: self._handler(f"/{SERVICE}/{name}", kind, method) for name, (kind, method) in methods.items()}

    def _health_handlers(self) -> dict[str, Any]:
        health = Health(self._engine, self._models, SERVICE)
        return {
            "Check": self._handler(f"/{HEALTH}/Check", HealthCheckRequest, health.check),
            "Watch": grpc.unary_stream_rpc_method_handler(
                health.watch,
                response_serializer=HealthCheckResponse.SerializeToString,
            ),
        }

    def _reflection_handlers(self, services: Sequence[str]) -> dict[str, Any]:
        servicer = reflection.aio.ReflectionServicer(services)

        async def describe_services(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[Any]:
            parsed = (wire.parse(request, ServerReflectionRequest) async for request in requests)
            try:
                async for response in servicer.ServerReflectionInfo(parsed, context):
                    yield response
                return
            except TensorError as error:
                text = str(error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

        handler = grpc.stream_stream_rpc_method_handler(
            describe_services, response_serializer=ServerReflectionResponse.SerializeToString
        )
        return {"ServerReflectionInfo": handler}

    def _handler(self, path: str, kind: Any, method: Method) -> Any:
        # On the wire a unary request is a stream of one message. Read as a stream, it waits until it is admitted, and
        # left as bytes, its size is checked before it is parsed, and what is invalid is no INTERNAL error.
        return grpc.stream_unary_rpc_method_handler(
            partial(self._handle, path, method, kind),
            response_serializer=lambda response: response.SerializeToString(),
        )

    async def _handle(
        self,
        path: str,
        method: Method,
        kind: Any,
        stream: AsyncIterator[Any],
        context: Any,
    ) -> Any:
        start = time.perf_counter()
        metadata = dict(context.invocation_metadata())
        token = request_id.set(safe_id(str(metadata.get("x-request-id", ""))))
        status, outcome = 200, None
        self._running += 1
        try:
            receive = partial(self._receive, stream, kind)
            if path in _PROBES:
                return await method(receive)
            self._keys.check(key_in(metadata))
            with self._engine.clients.place(self._keys.name(key_in(metadata)) or _host(context.peer())):
                return await method(receive)
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        except Exception as error:  # noqa: BLE001 - clients get a status, never a traceback
            (status, text), outcome = describe(error), outcome_of(error)
        finally:
            self._running -= 1
            seconds = time.perf_counter() - start
            self._engine.metrics.record_request(path, status, outcome, seconds)
            fields = {"method": "gRPC", "path": path}
            log_request(fields, status, seconds, _host(context.peer()), quiet=path in _PROBES)
            request_id.reset(token)
        # Not while the error is handled: gRPC keeps what abort() raises in a cycle, with the error that it stems from,
        # whose frames hold the message.
        return await self._abort(context, status, text)

    async def _receive(self, stream: AsyncIterator[bytes], kind: Any) -> Any:
        return await Deadline(self._engine.settings.request_timeout).within(_single(stream, kind))

    async def _abort(self, context: Any, status: int, message: str) -> Any:
        # Clients with a retry policy wait so long.
        pause = (("grpc-retry-pushback-ms", str(1000 * self._engine.retry_after)),) if status == 503 else ()
        return await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), message, pause)

    async def _server_live(self, _: Receive) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, _: Receive) -> Any:
        return messages.ServerReadyResponse(ready=self._engine.ready)

    async def _server_metadata(self, _: Receive) -> Any:
        return messages.ServerMetadataResponse(name=SERVER, version=__version__, extensions=EXTENSIONS)

    async def _model_ready(self, receive: Receive) -> Any:
        asked = await receive()
        try:
            ready = self._models.get(asked.name, asked.version or VERSION).ready
        except UnknownModelError:
            ready = False
        return messages.ModelReadyResponse(ready=ready)

    async def _model_metadata(self, receive: Receive) -> Any:
        asked = await receive()
        facts = self._models.get(asked.name, asked.version or VERSION).metadata
        # The messages have no field for the parameters of REST.
        return messages.ModelMetadataResponse(**{name: facts[name] for name in facts if name != "parameters"})

    async def _model_config(self, receive: Receive) -> Any:
        asked = await receive()
        config = self._models.get(asked.name, asked.version or VERSION).config
        return ParseDict({"config": config}, messages.ModelConfigResponse())

    async def _model_statistics(self, receive: Receive) -> Any:
        asked = await receive()
        statistics = self._models.statistics(asked.name, asked.version)
        return ParseDict({"model_stats": statistics}, messages.ModelStatisticsResponse())

    async def _model_infer(self, receive: Receive) -> Any:
        with self._engine.admit():
            deadline = Deadline(self._engine.settings.request_timeout)
            message = await deadline.within(receive())
            model, version = message.model_name, message.model_version or VERSION
            parsed = await asyncio.to_thread(to_request, message)
            deadline.shorten(parsed.timeout)
            with self._models.use(model, version) as used:
                return await deadline.within(used.infer(parsed, partial(_pack, model, parsed.id or "")))

    async def _repository_index(self, receive: Receive) -> Any:
        asked = await receive()
        return messages.RepositoryIndexResponse(models=self._models.index(ready=asked.ready))

    async def _load(self, receive: Receive) -> Any:
        asked = await receive()
        await self._models.load(asked.model_name, asked.parameters)
        return messages.RepositoryModelLoadResponse()

    async def _unload(self, receive: Receive) -> Any:
        asked = await receive()
        await self._models.unload(asked.model_name)
        return messages.RepositoryModelUnloadResponse()


async def _single(stream: AsyncIterator[bytes], kind: Any) -> Any:
    """Receive and parse the message of a request.

    Raises:
        TensorError: There is none, or it is invalid.
    """
    async for data in stream:
        return await asyncio.to_thread(wire.parse, data, kind)
    error = "the request contains no message"
    raise TensorError(error)


def to_request(message: Any) -> InferRequest:
    """Convert a message to an `InferRequest`, whose tensors stay in the message.

    Raises:
        TensorError: The message does not follow the protocol.
    """
    raw, inputs, outputs = message.raw_input_contents, message.inputs, message.outputs
    if max(len(inputs), len(outputs)) > MAX_TENSORS:
        text = f"{len(inputs)} inputs and {len(outputs)} outputs exceed the limit of {MAX_TENSORS}: send fewer"
        raise TensorError(text)
    if raw and len(raw) != len(inputs):
        text = f"{len(inputs)} inputs have {len(raw)} raw contents: send one for each"
        raise TensorError(text)
    if any(len(name) > MAX_NAME for name in (message.id, *(tensor.name for tensor in (*inputs, *outputs)))):
        text = f"an id or a name has more than {MAX_NAME} characters: send a shorter one"
        raise TensorError(text)
    return InferRequest(
        id=message.id or None,
        inputs=tuple(_to_input(tensor, raw[number] if raw else None) for number, tensor in enumerate(inputs)),
        outputs=tuple(RequestedOutput(o.name, binary=True, classes=_integer(o, "classification")) for o in outputs),
        binary_outputs=True,
        timeout=_integer(message, "timeout") / 1e6 or math.inf,
    )


def _to_input(tensor: Any, raw: bytes | None) -> Input:
    listed = ListedData(tensor.contents.uint_contents, tensor.contents.bytes_contents)
    data = listed if raw is None else BinaryData(memoryview(raw))
    return Input(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _integer(message: Any, parameter: str) -> int:
    """Return a parameter, 0 by default.

    Raises:
        TensorError: It is negative, or of another type.
    """
    if parameter not in message.parameters:
        return 0
    given = message.parameters[parameter]
    if given.WhichOneof("parameter_choice") != "int64_param":
        text = f"parameter {parameter} is not an integer: send it as int64_param"
        raise TensorError(text)
    value: int = given.int64_param
    if value < 0:
        text = f"parameter {parameter} is {value}: send 0 or more"
        raise TensorError(text)
    return value


def _pack(model: str, identifier: str, outputs: Sequence[Output]) -> Any:
    response = messages.ModelInferResponse(model_name=model, model_version=VERSION, id=identifier)
    for output in outputs:
        response.outputs.add(name=output.requested.name, datatype=output.datatype, shape=output.tensor.shape)
        response.raw_output_contents.append(output.to_bytes())
    return response


def _host(peer: str) -> str:
    """Return the host of a peer such as ``ipv4:127.0.0.1:40000``."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")
