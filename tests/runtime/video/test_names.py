"""A file is a file, whatever it is called: no name is taken for an address, a pattern or an option."""

import os
import socket
from pathlib import Path

import pytest

from helpers.video_files import encode, number_in, read_whole, read_whole_clip
from xclip_runtime.errors import VideoError, VideoNotFoundError
from xclip_runtime.streaming.sources import open_source

NAMES = [
    "2024-05-01T12:30:45.mp4",
    "T12:30/clip.mp4",
    "Movie: Title.mp4",
    "file:x.mp4",
    "http:x.mp4",
    "rtsp:x.mp4",
    "pipe:0",
    "pipe:0.mp4",
    "fd:0",
    "data:video,mp4",
    "concat:a.mp4|b.mp4",
    "subfile,,start,0,end,0,,:x.mp4",
    "crypto:x.mp4",
    "async:cache:x.mp4",
    "lavfi:testsrc",
    "C:\\Users\\x.mp4",
    "-0Abc.mp4",
    "-",
    "--help.mp4",
    "0",
    "img%03d.mp4",
    "100% done %d %s.mp4",
    "*.mp4",
    "[ab]?.mp4",
    "~.mp4",
    "$HOME.mp4",
    "#hash?query=1&b=2.mp4",
    "two\nlines.mp4",
    "tab\tand\rreturn.mp4",
    "\x1b[31mred.mp4",
    "'quotes\" and `ticks`.mp4",
    " spaces .mp4 ",
    "ein Läufer, 走る 🏃.mp4",
    "no-extension",
    ".hidden.mp4",
    "wrong.txt",
    "playlist.m3u8",
    "picture.png",
    os.fsdecode(b"caf\xe9.mp4"),
    "n" * 251 + ".mp4",
]


@pytest.fixture(scope="module")
def video(clip_folder):
    return encode(clip_folder / "named.mp4", frames=20).read_bytes()


@pytest.fixture(params=NAMES, ids=lambda name: ascii(name)[:40])
def name(request, video, tmp_path, monkeypatch):
    """A name in the current folder, and a decoy for those who read something else in it."""
    path = tmp_path / request.param
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(video)
    monkeypatch.chdir(tmp_path)
    return request.param


class Named(os.PathLike):
    def __init__(self, name):
        self._name = name

    def __fspath__(self):
        return self._name


@pytest.mark.parametrize("kind", [str, Path, Named])
@pytest.mark.parametrize("place", ["relative", "absolute", "dotted"])
def test_any_name_is_read(name, kind, place, tmp_path):
    spelled = {"relative": name, "absolute": str(tmp_path / name), "dotted": f"./{name}"}[place]
    seen, clip = read_whole_clip(kind(spelled), [3, 17])
    assert clip.total == 20
    assert [number_in(image) for image in seen] == [3, 17]


def test_a_name_that_looks_like_an_address_is_no_address_to_a_stream(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("2024-05-01T12:30:45.mp4", "Movie: Title.mp4", "img%03d.mp4", "file:x.mp4", "rtsp:x.mp4"):
        Path(name).write_bytes(video)
        source = open_source(name)
        assert sum(1 for _ in source) == 20


@pytest.mark.parametrize(
    "name", ["file:plain.mp4", "file:///{folder}/plain.mp4", "concat:plain.mp4", "plain%.mp4", "pla?n.mp4"]
)
def test_a_name_of_no_file_is_not_found_though_ffmpeg_would_find_one(video, tmp_path, monkeypatch, name):
    (tmp_path / "plain.mp4").write_bytes(video)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoNotFoundError):
        read_whole(name.format(folder=tmp_path), [0])


@pytest.mark.parametrize("scheme", ["http", "https", "tcp", "rtsp", "rtmp", "ftp", "httpproxy", "gopher"])
def test_an_address_where_a_file_is_due_is_not_called(scheme):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        with pytest.raises(VideoNotFoundError) as error:
            read_whole(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/a.mp4", [0])
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a" * 300 + ".mp4", "a/" * 3000 + "x.mp4", "nul\0.mp4", "", "missing\nfile.mp4"])
def test_a_name_that_no_file_can_have_is_refused_in_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError) as error:
        read_whole(name, [0])
    assert "\n" not in str(error.value)
    assert "\0" not in str(error.value)


def test_what_is_wrong_with_a_file_of_an_odd_name_is_said_in_one_line(tmp_path):
    path = tmp_path / "two\nlines.mp4"
    path.write_bytes(b"no video at all " * 64)
    with pytest.raises(VideoError) as error:
        read_whole(path, [0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["way/" * 60 + "deep.mp4"])
def test_a_path_longer_than_a_name_may_be_is_read(video, tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_bytes(video)
    monkeypatch.chdir(tmp_path)
    assert number_in(read_whole(name, [5])[0]) == 5
