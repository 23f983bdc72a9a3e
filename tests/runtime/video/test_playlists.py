"""A file that names further files or addresses is refused, and nothing that it names is touched."""

import shutil
import socket

import av
import pytest

from helpers.video_files import encode, number_in, read_whole
from helpers.watched_files import listener, opened_files
from xclip_runtime.errors import VideoError
from xclip_runtime.streaming.sources import open_source

PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{file}\n#EXT-X-ENDLIST\n",
    "hls-address": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "hls-master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://127.0.0.1:{port}/a.m3u8\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{file}"\n#EXTINF:10,\n{file}\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{file}'\n",
    "concat-relative": "ffconcat version 1.0\nfile secret.ts\n",
    "concat-address": "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.ts'\n",
    "concat-option": "ffconcat version 1.0\nfile '{file}'\noption safe 0\n",
    "dash": (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="0" codecs="avc1" width="160" height="128">'
        "<BaseURL>{file}</BaseURL><SegmentBase/></Representation></AdaptationSet></Period></MPD>\n"
    ),
    "sdp": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    ),
    "rtsp-text": "RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
    "m3u": "{file}\nhttp://127.0.0.1:{port}/a.ts\n",
    "asx": '<asx version="3.0"><entry><ref href="http://127.0.0.1:{port}/a.asf"/></entry></asx>\n',
    "smooth": '<SmoothStreamingMedia MajorVersion="2"><StreamIndex Url="{file}"/></SmoothStreamingMedia>\n',
    "imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{file}</Id></CompositionPlaylist>',
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{file}" width="9" height="9"/></svg>\n',
    "vobsub": "# VobSub index file, v7\nid: en, index: 0\ntimestamp: 00:00:01:000, filepos: 000000000\n",
    "avisynth": 'AviSource("{file}")\n',
    "sami": "<SAMI><BODY><SYNC Start=0><P>{file}</BODY></SAMI>\n",
    "text": "{file}\n",
}
NAMES = ["list.mp4", "list.txt", "list.m3u8", "list.ffconcat", "list.mpd", "list.sdp", "list.ts", "list.idx", "list"]


@pytest.fixture(scope="module")
def video(clip_folder):
    return encode(clip_folder / "secret.ts", frames=12)


@pytest.fixture
def secret(video, tmp_path):
    """A video beside the playlist, which must not be opened."""
    for name in ("secret.ts", "list.sub"):
        shutil.copy(video, tmp_path / name)
    return tmp_path / "secret.ts"


def refuse(path, **options):
    with pytest.raises(VideoError) as error:
        read_whole(path, [0], **options)
    assert "\n" not in str(error.value)
    assert path.name in str(error.value)
    with pytest.raises(VideoError):
        next(iter(open_source(path)))
    return str(error.value)


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_what_names_other_files_is_refused_under_any_name(kind, secret, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    others = [secret, tmp_path / "list.sub"]
    with opened_files(*others) as opened, listener() as (port, callers):
        for name in NAMES:
            for file in (str(secret), secret.name, f"file://{secret}", f"file:{secret}"):
                path = tmp_path / name
                path.write_text(PLAYLISTS[kind].replace("{file}", file).replace("{port}", str(port)))
                refuse(path)
    assert opened == set()
    assert callers == []
    assert capfd.readouterr().err == ""


def test_a_playlist_is_called_one(secret, tmp_path):
    path = tmp_path / "list.m3u8"
    path.write_text(PLAYLISTS["hls"].replace("{file}", secret.name))
    assert "playlist" in refuse(path)


def images(folder, suffix):
    """frame-000 to frame-004, and one that is called as FFmpeg's pattern for all of them."""
    codec = {"png": "png", "jpg": "mjpeg"}[suffix]
    paths = [folder / f"frame-{number:03}.{suffix}" for number in range(5)] + [folder / f"frame-%03d.{suffix}"]
    for number, path in enumerate(paths):
        with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
            stream = container.add_stream(codec, rate=1)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24" if suffix == "png" else "yuvj420p"
            frame = av.VideoFrame(64, 48, "gray")
            frame.planes[0].update(bytes([40 * number]) * frame.planes[0].buffer_size)
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
    return paths


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_name_is_no_pattern_of_images(tmp_path, suffix):
    *others, pattern = images(tmp_path, suffix)
    with opened_files(*others) as opened:
        try:
            seen = read_whole(pattern, [0])
        except VideoError:
            seen = []
        with pytest.raises(VideoError):
            read_whole(tmp_path / f"frame-%04d.{suffix}", [0])
    assert opened == set()
    # An image may be refused or read, but only the one of that very name.
    assert [image.mean() > 190 for image in seen] in ([], [True])


def with_reference(video, target, reference):
    """A copy of an MP4, its index at the end, whose track says by this box that its data lie in another file."""
    data = bytearray(video.read_bytes())
    place = data.index(b"url \0\0\0\1") - 4
    data[place : place + 12] = reference
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        start = data.index(box) - 4
        size = int.from_bytes(data[start : start + 4], "big") + len(reference) - 12
        data[start : start + 4] = size.to_bytes(4, "big")
    target.write_bytes(data)
    return target


def address_box(name):
    """A data entry of ISO/IEC 14496-12 8.7.2."""
    content = b"url \0\0\0\0" + name.encode() + b"\0"
    return (len(content) + 4).to_bytes(4, "big") + content


def alias_box(name):
    """QuickTime's alias of a file, which FFmpeg can follow."""
    path = name.encode()
    content = b"alis\0\0\0\0" + bytes(10) + b"\1" + b"x".ljust(27, b"\0") + bytes(12)
    content += bytes([len(path)]) + path.ljust(63, b"\0") + bytes(16) + b"\0\1\0\1" + bytes(16)
    for kind, value in ((2, path), (18, path)):
        content += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + b"\0" * (len(value) % 2)
    content += b"\xff\xff\0\0"
    return (len(content) + 4).to_bytes(4, "big") + content


@pytest.mark.parametrize("box", [address_box, alias_box])
@pytest.mark.parametrize("name", ["other.mp4", "file:other.mp4", "http://127.0.0.1:{port}/other.mp4"])
def test_the_data_of_an_mp4_are_not_sought_in_another_file(tmp_path, monkeypatch, box, name):
    monkeypatch.chdir(tmp_path)
    video = encode(tmp_path / "video.mp4", frames=12)
    other = tmp_path / "other.mp4"
    shutil.copy(video, other)
    with opened_files(other) as opened, listener() as (port, callers):
        path = with_reference(video, tmp_path / "refers.mp4", box(name.replace("{port}", str(port))))
        try:
            seen = read_whole(path, range(12))
        except VideoError:
            seen = []
    # Its own data, which it has as well, may be read.
    assert [number_in(image) for image in seen] in ([], list(range(12)))
    assert opened == set()
    assert callers == []


def test_ffmpeg_by_itself_opens_what_these_files_name(secret, tmp_path, monkeypatch):
    # Otherwise nothing above would be tested.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.m3u8").write_text(PLAYLISTS["hls"].replace("{file}", "secret.ts"))
    (tmp_path / "list.txt").write_text(PLAYLISTS["concat-relative"])
    with_reference(encode(tmp_path / "video.mp4"), tmp_path / "refers.mp4", alias_box("secret.ts"))
    for name, options in (("list.m3u8", {}), ("list.txt", {}), ("refers.mp4", {"enable_drefs": "1"})):
        with opened_files(secret) as opened, av.open(str(tmp_path / name), options=options) as container:
            next(container.demux(video=0))
        assert opened == {"secret.ts"}, name


def test_what_is_opened_and_called_is_noticed(video, tmp_path):
    # Otherwise nothing above would be tested.
    with opened_files(video) as opened, listener() as (port, callers):
        read_whole(video, [0])
        socket.create_connection(("127.0.0.1", port)).close()
    assert opened == {video.name}
    assert len(callers) == 1
