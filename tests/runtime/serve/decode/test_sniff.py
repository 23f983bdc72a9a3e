"""Uploads are videos by their first bytes, and playlists are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.serve.decode.sniff import HEAD_BYTES, container


@pytest.mark.parametrize(
    ("suffix", "codec", "name"), [("mp4", "mp4v", "mp4"), ("avi", "MJPG", "avi"), ("mkv", "mp4v", "matroska")]
)
def test_what_opencv_writes_is_recognised(tmp_path, suffix, codec, name):
    path = tmp_path / f"clip.{suffix}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()

    assert container(path.read_bytes()[:HEAD_BYTES]) == name


def test_the_sample_is_recognised():
    assert container(DEMO_VIDEO.read_bytes()[:HEAD_BYTES]) == "mp4"


@pytest.mark.parametrize(("size", "offset"), [(188, 0), (192, 4)], ids=["bare", "with timestamps"])
def test_transport_streams_are_recognised_by_their_packets(size, offset):
    packet = bytes(offset) + b"\x47" + bytes(size - offset - 1)

    assert container((packet * 3)[:HEAD_BYTES]) == "mpegts"
    assert container((packet + bytes(2 * size))[:HEAD_BYTES]) is None


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/secret.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n",
        b"RIFF\x00\x00\x00\x00WAVEfmt ",
        b"\x89PNG\r\n\x1a\n",
        bytes(400),
    ],
)
def test_playlists_sounds_pictures_and_noise_are_not(head):
    assert container(head) is None
