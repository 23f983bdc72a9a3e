"""Decoding happens elsewhere, within limits, and a worker that dies is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import asynccontextmanager

import cv2
import numpy as np
import pytest

from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import (
    DecoderCrashedError,
    FramesError,
    VideoDecodeError,
    VideoError,
    VideoLimitError,
    VideoTimeoutError,
)
from xclip_runtime.serve.decode.pool import DecodePool
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
        async with pool_of(decode_bytes=64 << 20) as pool:
            await sample(pool)

    # It can neither load nor start what it needs; how it fails is up to the libraries that it is in.
    with pytest.raises((VideoDecodeError, DecoderCrashedError)):
        asyncio.run(main())


def test_a_worker_that_hangs_is_killed_at_the_time_limit():
    restarts = []

    async def main():
        async with pool_of(restarts=restarts, time_limit=0.2) as pool:
            [hanging] = pool.pids
            os.kill(hanging, signal.SIGSTOP)
            with pytest.raises(VideoTimeoutError, match=r"ride\.mp4 takes longer than"):
                await sample(pool)
            while not pool.pids or pool.pids == (hanging,):
                await asyncio.sleep(0.01)
            return pool.pids

    assert len(asyncio.run(main())) == 1
    assert restarts == ["timeout"]


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


def test_killing_an_idle_worker_costs_nothing():
    async def main():
        async with pool_of() as pool:
            [victim] = pool.pids
            os.kill(victim, signal.SIGKILL)
            while victim in pool.pids:
                await asyncio.sleep(0.01)
            return await sample(pool)

    assert asyncio.run(main()).total == 75


def test_a_caller_who_leaves_frees_the_worker():
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
