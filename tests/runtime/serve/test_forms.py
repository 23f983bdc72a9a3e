"""Forms are read the same however they are cut into chunks, and nothing in them raises but what clients are told."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from xclip_runtime.errors import UploadTooLargeError
from xclip_runtime.serve.forms import FormParser

BOUNDARY = "multipart/form-data; boundary=x"

pieces = st.sampled_from(
    [
        *(b"--x\r\n", b"--x--", b"--x--\r\n", b"\r\n", b"\r", b"\n", b"--", b"x", b"\x00", b"\xff", b"a" * 300),
        *(b'Content-Disposition: form-data; name="texts"\r\n\r\n', b"Content-Disposition: form-data\r\n"),
        *(b'Content-Disposition: form-data; name="v"; filename="a\\"b"\r\n\r\n', b"Content-Type: text/plain\r\n", b":"),
    ]
)
fields = st.lists(st.tuples(st.sampled_from(["texts", "labels", "top_k"]), st.text(max_size=30)), max_size=5)
quick = settings(max_examples=100, deadline=None)


def cut(data, sizes):
    """The data in chunks of these sizes, over and over."""
    start = 0
    while start < len(data):
        size = sizes[0]
        yield data[start : start + size]
        start, sizes = start + size, [*sizes[1:], size]


def form_of(values, video):
    head = [f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in values]
    file = b'--x\r\nContent-Disposition: form-data; name="video"; filename="ride.mp4"\r\n\r\n' + video + b"\r\n"
    return b"".join([*head, file, b"--x--\r\n"])


@pytest.mark.parametrize("kept", [0, 1, 20, 100, -1, -2, -4])
def test_a_form_that_is_cut_short_is_refused(kept):
    form = FormParser(BOUNDARY)
    form.feed(form_of([("texts", "a cat")], b"video" * 20).rstrip()[:kept])

    with pytest.raises(HTTPException, match="cut short"):
        form.finish()


@quick
@given(
    values=fields,
    video=st.binary(max_size=200).filter(lambda content: b"--x" not in content),
    sizes=st.lists(st.integers(1, 40), min_size=1),
)
def test_fields_and_file_are_those_that_were_sent(values, video, sizes):
    values = [(name, value) for name, value in values if "--x" not in value]
    form = FormParser(BOUNDARY)
    received = b"".join(form.feed(chunk) for chunk in cut(form_of(values, video), sizes))
    form.finish()

    expected = {}
    for name, value in values:
        expected.setdefault(name, []).append(value)
    assert received == video
    assert form.file_name == "ride.mp4"
    assert form.fields == {name: sent[0] if len(sent) == 1 else sent for name, sent in expected.items()}


@quick
@given(parts=st.lists(pieces | st.binary(max_size=8), max_size=30), sizes=st.lists(st.integers(1, 50), min_size=1))
def test_no_form_raises_what_a_client_is_not_told(parts, sizes):
    form = FormParser(BOUNDARY)
    with contextlib.suppress(HTTPException, UploadTooLargeError):
        for chunk in cut(b"".join(parts), sizes):
            form.feed(chunk)
        form.finish()


# Headers are decoded as Latin-1.
header_text = st.text(st.characters(max_codepoint=255), max_size=300)


@quick
@given(header=header_text | header_text.map(lambda boundary: f"multipart/form-data; boundary={boundary}"))
def test_no_content_type_raises_what_a_client_is_not_told(header):
    with contextlib.suppress(HTTPException):
        FormParser(header)
