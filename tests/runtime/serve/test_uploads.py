"""Bodies go straight to one file each; where it has no room the client is told, and nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading

import av
import pytest

from helpers.servers import eventually, running
from xclip_runtime.demo import DEMO_VIDEO

VIDEO = DEMO_VIDEO.read_bytes()
SMALL_DISK = 1 << 20


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A disk of one mebibyte."""
    folder, libc = tmp_path_factory.mktemp("disk"), ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={SMALL_DISK}".encode()):
        pytest.skip(f"a small disk cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield folder
    finally:
        libc.umount2(os.fsencode(folder), 2)


@pytest.fixture(scope="module")
def cramped(model, small_disk, server):
    """A server whose uploads go to that disk; those of `server`, which must be there before, do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(small_disk))
        with running(model) as full:
            yield full


def left_in(folder):
    return [file for inner in folder.iterdir() for file in inner.iterdir()]


REQUESTS = {
    "bare": ("/v1/classify", lambda content: {"content": content}),
    "form": ("/v1/classify", lambda content: {"files": {"video": content}}),
    "tensors": ("/v2/models/xclip_video/infer", lambda content: {"content": content}),
}


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("size", [SMALL_DISK + 1, 10 * SMALL_DISK], ids=["just", "far"])
def test_an_upload_that_the_disk_has_no_room_for_is_507_and_leaves_nothing(cramped, small_disk, caplog, kind, size):
    path, body = REQUESTS[kind]
    reply = cramped.client.post(path, **body(bytes(size)))
    left = left_in(small_disk)
    after = cramped.client.post("/v1/embed", content=VIDEO)

    assert reply.status_code == 507
    error = reply.json()["error"]
    message = error if kind == "tensors" else error["message"]
    assert "no room for the upload" in message
    assert str(small_disk) not in reply.text
    assert left == []
    assert after.status_code == 200
    assert [r.fields["folder"] for r in caplog.records if r.getMessage() == "no room for uploads"]


def test_a_form_needs_no_more_room_than_its_video(cramped):
    padding = SMALL_DISK * 7 // 10 - len(VIDEO)
    assert padding > 0
    free_box = b"".join([(padding).to_bytes(4, "big"), b"free", bytes(padding - 8)])
    reply = cramped.client.post("/v1/embed", files={"video": VIDEO + free_box})

    assert reply.status_code == 200, reply.text


def test_the_file_of_a_form_arrives_as_it_is_sent(model, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sent, more = threading.Event(), threading.Event()
    head = b'--x\r\nContent-Disposition: form-data; name="v"; filename="a.mp4"\r\n\r\n'

    def chunks():
        yield head + bytes(2 << 20)
        sent.set()
        more.wait(60)
        yield VIDEO + b"\r\n--x--\r\n"

    with running(model) as server:
        post = threading.Thread(
            target=lambda: server.client.post(
                "/v1/embed", content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=x"}
            )
        )
        post.start()
        assert sent.wait(60)
        eventually(lambda: sum(file.stat().st_size for file in left_in(tmp_path)) >= 1 << 20)
        more.set()
        post.join(60)

        assert left_in(tmp_path) == []


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


def part(disposition, content=b"x"):
    return b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (part(b"form-data"), 400, "has no name"),
        (part(b'form-data; name="v"; filename="a"') * 2 + b"--x--\r\n", 400, "several files"),
        (part(b'form-data; name="texts"', b"\xff") + b"--x--\r\n", 400, "not UTF-8"),
        (part(b'form-data; name="texts"', b"x" * (3 << 20)) + b"--x--\r\n", 413, "fields exceed"),
        (part(b'form-data; name="' + b"x" * 5000 + b'"'), 400, "not valid multipart"),
        (part(b'form-data; name="texts"') * 2001 + b"--x--\r\n", 413, "more than 2000 fields"),
        (b"nonsense", 400, "not valid multipart"),
        (b"", 400, "cut short"),
        (part(b'form-data; name="v"; filename=""', b"") + b"--x--\r\n", 422, "no video"),
    ],
    ids=["no name", "two files", "no text", "long field", "long header", "fields", "no form", "nothing", "no file"],
)
def test_forms_that_are_broken_or_too_large_are_refused_with_a_reason(server, body, status, said):
    reply = server.client.post("/v1/classify", content=body, headers=FORM)

    assert reply.status_code == status, reply.text
    assert said in reply.json()["error"]["message"]


def test_a_form_names_its_boundary(server):
    reply = server.client.post("/v1/classify", content=b"--x--", headers={"Content-Type": "multipart/form-data"})

    assert reply.status_code == 400
    assert "boundary" in reply.json()["error"]["message"]


@pytest.mark.parametrize("suffix", ["sdp", "ffconcat", "m3u8"])
def test_text_that_names_other_streams_is_not_opened_whatever_it_is_called(server, suffix):
    """The first bytes may look like a container: the list of formats decides, not a sniff."""
    sdp = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"
    for head in (b"", b"\x00\x00\x00\x18ftypmp42\r\n", b"\x1aE\xdf\xa3\r\n", b"RIFF\r\n"):
        name = f"a.{suffix}"
        reply = server.client.post("/v1/classify", files={"video": (name, head + sdp)})
        assert reply.status_code == 422, reply.text
        assert name in reply.json()["error"]["message"]


def test_a_video_that_grows_beyond_the_limit_on_its_way_is_refused(server, tmp_path):
    """64x64 at first, as its header says, and 8192x4320 then."""
    video = b"".join(h264(tmp_path / "part.h264", *size) for size in ((64, 64), (8192, 4320)))
    reply = server.client.post("/v1/classify", content=video)

    assert reply.status_code == 422
    assert "8192x4320 pixels" in reply.json()["error"]["message"]


def h264(path, width, height):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5, options={"preset": "ultrafast"})
        stream.width, stream.height = width, height
        frame = av.VideoFrame(width, height, "yuv420p")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path.read_bytes()
