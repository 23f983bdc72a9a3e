"""Send requests of the Open Inference Protocol that no client would, over HTTP and gRPC, to a server.

    python tests/helpers/fuzz_protocol.py --cases 20000 --seed 1

None may end in an internal error, take longer than the server's deadline, or cost much more memory than it has bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as messages

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script

from xclip_runtime.errors import TensorError
from xclip_runtime.serve.inference_protocol import codec, wire
from xclip_runtime.serve.inference_protocol.rpc import SERVICE, to_request

MULTIPLE, SPARE = 10, 1 << 20
"""Bytes that a request may allocate: so many times its own, and some."""

DEADLINE = 10.0
SHAPES = [
    [1],
    [1, 32, 224, 224, 3],
    [2, 32, 224, 224, 3],
    [0],
    [],
    [2**31],
    [2**32] * 2,
    [1] * 70,
    [-1, 5],
    [2**40, 0],
    [3],
]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a" * 30_000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
# Of these a document may hold thousands.
TOKENS = st.sampled_from(
    ["0", "255", "256", "-1", "1.5", "[]", "{}", '""', '"aaa"', "[[0]]", '{"name":"a"}', "null", ""]
)
NAMES = st.sampled_from(["pixel_values", "video", "logits_per_video"] * 3 + ["x" * 1000, ""])


def _many(token: str, count: int, first: str) -> str:
    return f"[{','.join([first, *[token] * count])}]"


MANY = st.builds(_many, TOKENS, st.integers(0, 20_000), TOKENS)
DATATYPES = st.sampled_from(["UINT8", "UINT8", "BYTES", "BYTES", "FP32", "", None])
SIZES = st.integers(0, 300) | st.sampled_from([-1, 2**31, 2**63, 2**64])
PARAMETERS = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": SIZES,
        "binary_data": st.booleans(),
        "classification": st.integers(0, 10),
        "timeout": SIZES,
        "binary_data_output": st.booleans(),
    },
)


@st.composite
def documents(draw) -> str:
    """A JSON document of a request, or something like one."""
    marks: dict[str, str] = {}

    def many() -> str:
        mark = f"mark {len(marks)}"
        marks[json.dumps(mark)] = draw(MANY)
        return mark

    def junk(right: st.SearchStrategy) -> object:
        return draw(JSON) if draw(st.integers(0, 15)) == 15 else draw(right)

    def tensor() -> object:
        fields = {
            "name": junk(NAMES),
            "datatype": junk(DATATYPES),
            "shape": many() if draw(st.integers(0, 9)) == 9 else junk(st.sampled_from(SHAPES)),
            "data": many() if draw(st.booleans()) else draw(JSON),
            "parameters": junk(PARAMETERS),
        }
        return {name: fields[name] for name in fields if draw(st.integers(0, 19)) < 19}

    outputs = st.none() | st.lists(st.fixed_dictionaries({"name": NAMES, "parameters": PARAMETERS}), max_size=3)
    body = {
        "inputs": many() if draw(st.integers(0, 9)) == 9 else [tensor() for _ in range(draw(st.integers(0, 2)))],
        "outputs": many() if draw(st.integers(0, 9)) == 9 else junk(outputs),
        "id": junk(st.none() | st.text(max_size=5)),
        "parameters": junk(PARAMETERS),
    }
    text = json.dumps({name: body[name] for name in body if draw(st.integers(0, 19)) < 19})
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text


ELEMENTS = st.builds(
    lambda size, content, count: (size.to_bytes(4, "little") + content) * count,
    st.integers(0, 4) | st.just(2**32 - 1),
    st.binary(max_size=4),
    st.integers(0, 20_000),
)


@st.composite
def mutated(draw, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of which some may be changed, missing, or repeated."""
    data = draw(whole)
    way = draw(st.integers(0, 11))
    if way > 2 or not data:
        return data
    place = draw(st.integers(0, len(data) - 1))
    if way == 0:
        return data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place + 1 :]
    return data[:place] if way == 1 else data[:place] + data[place:] * 2


BODIES = st.tuples(
    mutated(documents().map(str.encode)) | st.binary(max_size=300),
    ELEMENTS | st.binary(max_size=300),
    st.sampled_from(["right", "none"]) | st.integers(0, 400).map(str) | st.sampled_from(["9" * 5000, "²", "-1", "x"]),
)
"""JSON, what follows it, and the header with its length."""


def _message(tensors, outputs, raw, parameters, identifier) -> bytes:
    message = messages.ModelInferRequest(model_name="xclip", id=identifier)
    for name, datatype, shape, numbers, texts in tensors:
        added = message.inputs.add(
            name=name, datatype=datatype, shape=[max(-(2**63), min(n, 2**63 - 1)) for n in shape]
        )
        added.contents.uint_contents.extend(numbers)
        added.contents.bytes_contents.extend(texts)
    for name, classes in outputs:
        message.outputs.add(name=name).parameters["classification"].int64_param = classes
    message.raw_input_contents.extend(raw)
    for name, value in parameters.items():
        message.parameters[name].int64_param = value
    return message.SerializeToString()


def _repeated(item: st.SearchStrategy, most: int) -> st.SearchStrategy:
    return st.builds(lambda value, count: [value] * count, item, st.integers(0, 2) | st.integers(0, most))


MESSAGES = st.builds(
    _message,
    _repeated(
        st.tuples(
            NAMES,
            DATATYPES.map(lambda datatype: datatype or ""),
            st.sampled_from(SHAPES),
            _repeated(st.integers(0, 300), 5000),
            _repeated(st.binary(max_size=4), 2000),
        ),
        3,
    ),
    _repeated(st.tuples(NAMES, st.integers(-5, 2**62)), 2000),
    _repeated(ELEMENTS, 3),
    st.dictionaries(st.sampled_from(["timeout", "a", ""]), st.integers(-(2**62), 2**62)),
    NAMES,
)
ENCODED = (
    mutated(MESSAGES)
    | st.binary(max_size=300)
    | st.builds(lambda one, count: one * count, st.binary(max_size=4), st.integers(0, 50_000))
)


def read_all(parse) -> str:
    """Parse a request and read its tensors; return the outcome."""
    try:
        request = parse()
        for tensor in request.inputs:
            for read in (tensor.uint8, tensor.strings):
                try:
                    read()
                except TensorError:
                    continue
    except TensorError:
        return "refused"
    return "parsed"


def check_body(case: tuple[bytes, bytes, str]) -> str:
    """Parse a body as the server does; return the outcome."""
    document, payload, header = case
    lengths = {"right": len(document), "none": None}
    length = lengths[header] if header in lengths else int(header) if re.fullmatch("[0-9]{1,12}", header) else None
    body = memoryview(document + payload)
    return bounded(len(body), lambda: read_all(lambda: codec.parse(body, length)))


def check_message(data: bytes) -> str:
    """Parse a gRPC message as the server does; return the outcome."""
    return bounded(len(data), lambda: read_all(lambda: to_request(wire.parse(data, messages.ModelInferRequest))))


def bounded(size: int, work) -> str:
    """Check time and memory of work on a request of so many bytes."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        outcome = work()
    finally:
        seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= MULTIPLE * size + SPARE, f"{size} bytes allocate {peak}"
    assert seconds < DEADLINE, f"{size} bytes take {seconds:.1f} s"
    return outcome


def send_body(client, case: tuple[bytes, bytes, str]) -> str:
    """Send a body over HTTP; return the status."""
    document, payload, header = case
    length = str(len(document)) if header == "right" else header
    headers = {} if header == "none" else {"Inference-Header-Content-Length": length.encode()}
    model = ("xclip", "xclip_video")[len(payload) % 2]
    answer = client.post(f"/v2/models/{model}/infer", content=document + payload, headers=headers)
    assert answer.status_code < 500 or answer.status_code == 504, answer.text
    assert answer.status_code == 200 or set(answer.json()) == {"error"}
    return str(answer.status_code)


def send_message(channel, data: bytes) -> str:
    """Send a message over gRPC; return the status."""
    send = channel.unary_unary(f"/{SERVICE}/ModelInfer", bytes, messages.ModelInferResponse.FromString)
    code = send.future(data, timeout=2 * DEADLINE).code().name
    assert code in {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}, code
    return code


def fuzz(cases: int, number: int) -> Counter[str]:
    """Check and send the cases, half of them over HTTP and half over gRPC; return how often each outcome came."""
    from helpers.servers import running
    from xclip_runtime import XClip
    from xclip_runtime.demo import DEMO_BUNDLE

    outcomes: Counter[str] = Counter()
    rules = settings(
        max_examples=cases // 2,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with (
        running(XClip(DEMO_BUNDLE, device="cpu"), grpc_port=0, request_timeout=DEADLINE) as server,
        grpc.insecure_channel(server.server.grpc_address) as channel,
    ):

        @rules
        @seed(number)
        @given(BODIES)
        def over_http(case):
            outcomes[f"http {check_body(case)}"] += 1
            outcomes[f"http {send_body(server.client, case)}"] += 1

        @rules
        @seed(number)
        @given(ENCODED)
        def over_grpc(data):
            outcomes[f"grpc {check_message(data)}"] += 1
            outcomes[f"grpc {send_message(channel, data)}"] += 1

        over_http()
        over_grpc()
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = fuzz(options.cases, options.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"outcomes": outcomes, "rss_mib": [before >> 10, peak >> 10]}, indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
