"""The Open Inference Protocol over gRPC (extra [grpc]): the models, limits, keys and metrics of /v2.

The messages are those of tritonclient, which are the protocol's own with Triton's additions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from xclip_runtime._version import __version__
from xclip_runtime.errors import MissingExtraError, TensorError, UnknownModelError, XClipError
from xclip_runtime.serve.error_responses import INTERNAL, INTERNAL_MESSAGE, status_of
from xclip_runtime.serve.inference_protocol.codec import InferRequest, Input, WantedOutput
from xclip_runtime.serve.inference_protocol.models import SERVER, VERSION, Models
from xclip_runtime.serve.logs import request_id
from xclip_runtime.serve.middleware import CLIENT_GONE, Keys, count, log_request, new_id
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

logger = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"

MESSAGE_BYTES = 64 << 20
"""Most bytes of one message, which is in memory as a whole, unlike an upload over HTTP."""

_PROBES = {"ServerLive", "ServerReady"}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class RpcServer:
    """A server of gRPC beside the one of HTTP, on the same event loop.

    Args:
        engine: What answers.
        address: Where to listen, as HOST:PORT.
    """

    def __init__(self, engine: Engine, address: str) -> None:
        self._engine = engine
        self._address = address
        self._keys = Keys(engine.settings.api_keys)
        self._models = Models(engine)

    async def start(self) -> None:
        """Take requests.

        Raises:
            RuntimeError: The address is taken.
        """
        most = min(MESSAGE_BYTES, self._engine.settings.limits.upload_bytes)
        # Two servers that share a port would each get some of the requests.
        options = [("grpc.max_receive_message_length", most), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        self._server.add_insecure_port(self._address)
        await self._server.start()

    async def stop(self, seconds: float) -> None:
        """Take no more requests and answer those that have been accepted, which may last so long."""
        await self._server.stop(seconds)

    def _handlers(self) -> dict[str, Any]:
        methods: dict[str, tuple[Any, Callable[[Any], Awaitable[Any]]]] = {
            "ServerLive": (messages.ServerLiveRequest, self._server_live),
            "ServerReady": (messages.ServerReadyRequest, self._server_ready),
            "ServerMetadata": (messages.ServerMetadataRequest, self._server_metadata),
            "ModelReady": (messages.ModelReadyRequest, self._model_ready),
            "ModelMetadata": (messages.ModelMetadataRequest, self._model_metadata),
            "ModelInfer": (messages.ModelInferRequest, self._model_infer),
        }
        # On the wire a single message is a stream of one. Read as such, it can wait until there is a place for it.
        return {
            name: grpc.stream_unary_rpc_method_handler(
                partial(self._answer, name, method),
                request_deserializer=kind.FromString,
                response_serializer=lambda answer: answer.SerializeToString(),
            )
            for name, (kind, method) in methods.items()
        }

    async def _answer(
        self,
        name: str,
        method: Callable[[Any], Awaitable[Any]],
        stream: AsyncIterator[Any],
        context: Any,
    ) -> Any:
        begun = time.perf_counter()
        metadata = dict(context.invocation_metadata())
        token = request_id.set(new_id(str(metadata.get("x-request-id", ""))))
        status = 200
        try:
            if name not in _PROBES:
                self._keys.check(metadata)
            return await method(stream)
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        except Exception as error:  # noqa: BLE001 - no traceback for clients
            status = status_of(error) if isinstance(error, XClipError) else INTERNAL
            await self._refuse(context, status, error)
        finally:
            path, seconds = f"/{SERVICE}/{name}", time.perf_counter() - begun
            count(self._engine.metrics, path, status, seconds)
            fields = {"method": "gRPC", "path": path}
            log_request(fields, status, seconds, _host(context.peer()), quiet=name in _PROBES)
            request_id.reset(token)

    async def _refuse(self, context: Any, status: int, error: Exception) -> None:
        message = str(error)
        if status == INTERNAL:
            # It is about this server: for the log, and not for strangers.
            logger.error("unexpected error", exc_info=error)
            message = INTERNAL_MESSAGE
        # Clients with a policy for retries wait so long.
        pause = (("grpc-retry-pushback-ms", str(1000 * self._engine.retry_after)),) if status == 503 else ()
        await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), message, pause)

    async def _server_live(self, _: AsyncIterator[Any]) -> Any:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, _: AsyncIterator[Any]) -> Any:
        return messages.ServerReadyResponse(ready=self._engine.ready)

    async def _server_metadata(self, _: AsyncIterator[Any]) -> Any:
        return messages.ServerMetadataResponse(name=SERVER, version=__version__, extensions=["classification"])

    async def _model_ready(self, stream: AsyncIterator[Any]) -> Any:
        request = await _only(stream)
        try:
            self._models.check(request.name, request.version or VERSION)
        except UnknownModelError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=self._engine.ready)

    async def _model_metadata(self, stream: AsyncIterator[Any]) -> Any:
        request = await _only(stream)
        self._models.check(request.name, request.version or VERSION)
        facts = self._models.metadata(request.name)
        # REST has a further field for what really runs; the messages have none.
        return messages.ModelMetadataResponse(**{name: facts[name] for name in facts if name != "parameters"})

    async def _model_infer(self, stream: AsyncIterator[Any]) -> Any:
        with self._engine.admitted():
            deadline = Deadline(self._engine.settings.deadline)
            request = await deadline.within(_only(stream))
            self._models.check(request.model_name, request.model_version or VERSION)
            asked = await asyncio.to_thread(_parsed, request)
            deadline.shorten(asked.timeout)
            outputs = await deadline.within(self._models.run(request.model_name, asked))
        answer = messages.ModelInferResponse(model_name=request.model_name, model_version=VERSION, id=request.id)
        for output in outputs:
            answer.outputs.add(name=output.wanted.name, datatype=output.datatype, shape=output.shown.shape)
            answer.raw_output_contents.append(output.to_bytes())
        return answer


async def _only(stream: AsyncIterator[Any]) -> Any:
    async for message in stream:
        return message
    text = "the request holds no message"
    raise TensorError(text)


def _parsed(request: Any) -> InferRequest:
    """A request in the terms of both protocols.

    Raises:
        TensorError: It is not what the protocol says.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        message = f"there are {len(request.inputs)} inputs and {len(raw)} raw contents: send one for each"
        raise TensorError(message)
    timeout = request.parameters["timeout"].int64_param if "timeout" in request.parameters else 0
    return InferRequest(
        id=request.id or None,
        inputs={tensor.name: tensor for tensor in _inputs(request.inputs, raw)},
        outputs=tuple(_wanted(output) for output in request.outputs),
        binary_outputs=True,
        timeout=timeout / 1e6 if timeout > 0 else math.inf,
    )


def _inputs(tensors: Any, raw: Any) -> Iterator[Input]:
    for number, tensor in enumerate(tensors):
        contents = tensor.contents
        listed = contents.bytes_contents if tensor.datatype == "BYTES" else contents.uint_contents
        data = memoryview(raw[number]) if raw else list(listed)
        yield Input(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _wanted(output: Any) -> WantedOutput:
    classes = output.parameters["classification"].int64_param if "classification" in output.parameters else 0
    return WantedOutput(output.name, binary=True, classes=max(0, classes))


def _host(peer: str) -> str:
    """The address of a peer such as ``ipv4:127.0.0.1:40000``, without its port."""
    return unquote(peer.partition(":")[2].rpartition(":")[0]).strip("[]")
