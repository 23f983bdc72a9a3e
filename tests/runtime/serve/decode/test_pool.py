"""Decoding happens elsewhere, within limits, and a worker that dies is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import zlib
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import (
    DecoderCrashedError,
    FramesError,
    OverloadedError,
    VideoDecodeError,
    VideoError,
    VideoLimitError,
    VideoTimeoutError,
)
from xclip_runtime.serve.decode import pool as pool_module
from xclip_runtime.serve.decode.pool import DecodePool
from xclip_runtime.serve.error_responses import status_of
from xclip_runtime.serve.settings import Limits
from xclip_runtime.video import FrameTransform, Views, read_views

TRANSFORM = FrameTransform("videox", 224)


@asynccontextmanager
async def pool_of(workers=1, restarts=None, **limits):
    told = [] if restarts is None else restarts
    pool = DecodePool(workers=workers, limits=Limits(**limits), on_restart=told.append)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def sample(pool, path=DEMO_VIDEO, **options):
    return await pool.clip(path, "ride.mp4", num_frames=8, transform=TRANSFORM, **{"views": Views(), **options})


def test_a_worker_reads_what_this_process_would_read():
    async def main():
        async with pool_of() as pool:
            return [
                await sample(pool),
                await sample(pool, views=Views(2, 3), start=0.5, end=2),
                await pool.image(
                    cv2.imencode(".png", np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))[1].tobytes(), "x"
                ),
            ]

    whole, views, image = asyncio.run(main())
    here = read_views(DEMO_VIDEO, num_frames=8, transform=TRANSFORM, views=Views())
    there = read_views(DEMO_VIDEO, num_frames=8, transform=TRANSFORM, views=Views(2, 3), start=0.5, end=2)

    np.testing.assert_array_equal(whole.frames, here.frames)
    np.testing.assert_array_equal(views.frames, there.frames)
    assert (whole.indices, whole.total, whole.codec) == (here.indices, here.total, here.codec)
    assert views.indices == there.indices
    np.testing.assert_array_equal(image, np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)[:, :, ::-1])


def test_what_cannot_be_read_is_an_error_without_the_servers_paths_and_the_worker_lives_on(tmp_path):
    broken = tmp_path / "upload"
    broken.write_bytes(DEMO_VIDEO.read_bytes()[:1000])

    async def main():
        async with pool_of() as pool:
            workers = pool.pids
            with pytest.raises(VideoDecodeError, match=r"^ride\.mp4 cannot be opened") as caught:
                await sample(pool, broken)
            with pytest.raises(VideoError, match=r"^ride\.mp4 has no frame from 100 s"):
                await sample(pool, start=100)
            with pytest.raises(FramesError, match="not an image"):
                await pool.image(b"no image", "the frame")
            assert pool.pids == workers
            return str(caught.value), await sample(pool)

    message, clip = asyncio.run(main())

    assert str(tmp_path) not in message
    assert clip.total == 75


@pytest.mark.parametrize(
    ("limits", "message"), [({"pixels": 1000}, "320x256 pixels"), ({"duration": 2.0}, "lasts 3 s")]
)
def test_a_video_over_a_limit_is_refused(limits, message):
    async def main():
        async with pool_of(**limits) as pool:
            await sample(pool)

    with pytest.raises(VideoLimitError, match=message):
        asyncio.run(main())


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{address}'\n",
        "<?xml version='1.0'?><MPD><Period><BaseURL>{address}</BaseURL></Period></MPD>",
    ],
    ids=["hls", "concat", "dash"],
)
def test_a_playlist_makes_no_worker_open_an_address(tmp_path, playlist):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        file = tmp_path / "playlist.m3u8"
        file.write_text(playlist.format(address=f"http://127.0.0.1:{listener.getsockname()[1]}/secret.ts"))

        async def main():
            async with pool_of() as pool:
                await sample(pool, file)

        with pytest.raises(VideoDecodeError):
            asyncio.run(main())
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_worker_has_no_more_memory_than_its_limit():
    async def main():
        async with pool_of(decode_memory=64 << 20) as pool:
            await sample(pool)

    # It can neither load nor start what it needs; how it fails is up to the libraries that it is in.
    with pytest.raises((VideoDecodeError, DecoderCrashedError)):
        asyncio.run(main())


def test_a_file_that_never_ends_is_given_up_at_the_time_limit(tmp_path):
    endless = tmp_path / "endless"
    os.mkfifo(endless)

    async def main():
        async with pool_of(time_limit=0.2) as pool:
            with pytest.raises(VideoError, match=r"ride\.mp4"):
                await sample(pool, endless)
            return await sample(pool)

    assert asyncio.run(main()).total == 75


def test_a_worker_that_is_stopped_is_replaced_and_its_file_read_by_another(monkeypatch):
    monkeypatch.setattr(pool_module, "_SILENCE_SECONDS", 1.0)
    restarts = []

    async def main():
        async with pool_of(restarts=restarts) as pool:
            [stopped] = pool.pids
            os.kill(stopped, signal.SIGSTOP)
            clip = await sample(pool)
            assert stopped not in pool.pids
            return clip

    assert asyncio.run(main()).total == 75
    assert restarts == ["stalled"]


def test_the_server_is_at_fault_where_no_worker_answers(monkeypatch):
    monkeypatch.setattr(pool_module, "_SILENCE_SECONDS", 0.5)

    async def main():
        async with pool_of(workers=2) as pool:
            for pid in pool.pids:
                os.kill(pid, signal.SIGSTOP)
            with pytest.raises(OverloadedError, match="try again later") as caught:
                await sample(pool)
            return caught.value

    assert status_of(asyncio.run(main())) == 503


SMALL_LIMIT = 100_000


def png_that_says(width, height):
    """A small PNG that unpacks to a large image."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def jpeg_of_many_scans(scans):
    """A small progressive JPEG whose last scan, of a few bytes, comes again and again; each takes milliseconds."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 1]
    encoded = cv2.imencode(".jpg", np.zeros((2000, 2000, 3), np.uint8), options)[1].tobytes()
    last = encoded.rindex(b"\xff\xda")
    return encoded[:last] + scans * encoded[last:-2] + encoded[-2:]


def test_an_image_that_takes_long_keeps_its_worker_for_no_longer_than_images_take(monkeypatch):
    monkeypatch.setattr(pool_module, "_IMAGE_SECONDS", 0.5)
    monkeypatch.setattr(pool_module, "_GRACE_SECONDS", 0.5)
    restarts = []

    async def main():
        async with pool_of(restarts=restarts) as pool:
            with pytest.raises(VideoTimeoutError, match=r"the frame takes longer than 0\.5 s to decode"):
                await pool.image(jpeg_of_many_scans(50_000), "the frame")
            return await sample(pool)

    assert asyncio.run(main()).total == 75
    assert restarts == ["timeout"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_over_the_limit_of_pixels_is_refused(suffix):
    large = cv2.imencode(suffix, np.zeros((400, 400, 3), np.uint8))[1].tobytes()

    async def main():
        async with pool_of(pixels=SMALL_LIMIT) as pool:
            workers = pool.pids
            for encoded in (large, png_that_says(8192, 4320)):
                with pytest.raises(FramesError, match=r"limit of 100000 pixels"):
                    await pool.image(encoded, "the frame")
            assert pool.pids == workers

    asyncio.run(main())


@pytest.mark.parametrize("suffix", [".bmp", ".tiff", ".ppm", ".hdr", ".gif"])
def test_images_of_other_formats_are_not_opened(suffix):
    other = cv2.imencode(suffix, np.zeros((8, 8, 3), np.uint8))[1].tobytes()

    async def main():
        async with pool_of() as pool:
            for encoded in (other, b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n", b"", b"RIFF"):
                with pytest.raises(FramesError, match="send JPEG, PNG or WebP"):
                    await pool.image(encoded, "the frame")

    asyncio.run(main())


def test_killing_a_worker_costs_the_request_that_it_had():
    restarts = []

    async def main():
        async with pool_of(restarts=restarts) as pool:
            [victim] = pool.pids
            os.kill(victim, signal.SIGSTOP)
            request = asyncio.ensure_future(sample(pool))
            other = asyncio.ensure_future(sample(pool))
            while pool.waiting != 1:
                await asyncio.sleep(0)
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(DecoderCrashedError, match="try again"):
                await request
            return await other

    assert asyncio.run(main()).total == 75
    assert restarts == ["crashed"]


def test_an_idle_worker_that_dies_is_counted_and_replaced_before_anybody_asks_for_it():
    restarts = []

    async def main():
        async with pool_of(restarts=restarts) as pool:
            await sample(pool)
            [victim] = pool.pids
            os.kill(victim, signal.SIGKILL)
            while not set(pool.pids) - {victim}:
                await asyncio.sleep(0.01)
            assert restarts == ["idle"]
            assert len(pool.pids) == 1
            return await sample(pool)

    assert asyncio.run(main()).total == 75
    assert restarts == ["idle"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ranks processes for this")
def test_where_memory_runs_out_the_kernel_takes_a_worker_before_the_server():
    async def main():
        async with pool_of() as pool:
            return [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in pool.pids]

    assert asyncio.run(main()) == [1000]


@pytest.mark.parametrize("leaves_after", [0, 0.001, 0.02, 0.05])
def test_callers_who_leave_cost_no_worker(leaves_after):
    restarts = []

    async def main():
        async with pool_of(restarts=restarts) as pool:
            workers = pool.pids
            for _ in range(5):
                request = asyncio.ensure_future(sample(pool))
                await asyncio.sleep(leaves_after)
                request.cancel()
            clip = await sample(pool)
            assert pool.pids == workers
            return clip

    clip = asyncio.run(main())

    np.testing.assert_array_equal(
        clip.frames, read_views(DEMO_VIDEO, num_frames=8, transform=TRANSFORM, views=Views()).frames
    )
    assert restarts == []


def test_a_worker_that_goes_on_for_long_after_its_caller_has_left_is_replaced():
    restarts = []

    async def main():
        async with pool_of(restarts=restarts) as pool:
            os.kill(pool.pids[0], signal.SIGSTOP)
            request = asyncio.ensure_future(sample(pool))
            await asyncio.sleep(0)
            request.cancel()
            return await sample(pool)

    assert asyncio.run(main()).total == 75
    assert restarts == ["cancelled"]


def test_no_worker_outlives_its_pool():
    async def main():
        async with pool_of(workers=2) as pool:
            return pool.pids

    pids = asyncio.run(main())

    assert len(set(pids)) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
