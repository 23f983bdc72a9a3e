"""Windows of several cameras on one model of the server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from xclip_runtime import Reuse, ServeSettings, XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.serve.metrics import Metrics
from xclip_runtime.serve.served_model import Opened, ServedModel
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import open_source

CAMERAS = 3


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def windows(model):
    """Windows of one camera each, which begin at different times."""
    source = open_source(DEMO_VIDEO)
    feed = WindowFeed(source, model.windows(1.0, 0.125, fps=source.fps, reuse=True), model.transform, newest_wins=False)
    cut = [taken.window for taken in feed]
    return [cut[number : number + 4] for number in range(CAMERAS)]


def test_windows_of_cameras_that_wait_together_are_computed_together_as_each_alone(model, windows):
    batches = []

    async def serve():
        settings = ServeSettings(batch_size=CAMERAS, batch_delay=1.0)
        served = ServedModel("demo", Opened(model), settings, Metrics(), None)
        encode, served.batcher._run = served.batcher._run, lambda items: batches.append(len(items)) or encode(items)
        served.batcher.start()
        encoders = [model.window_encoder(Reuse(refresh=0)) for _ in range(CAMERAS)]
        found = [
            await asyncio.gather(*(served.encode_window(*pair) for pair in zip(encoders, together, strict=True)))
            for together in zip(*windows, strict=True)
        ]
        await served.close()
        return found

    found = asyncio.run(serve())

    assert batches == [CAMERAS] * 4
    for camera, own in enumerate(windows):
        alone = model.window_encoder(Reuse(refresh=0))
        for (video, encoding), window in zip((row[camera] for row in found), own, strict=True):
            features, wanted = alone.encode(window)
            assert encoding == wanted
            np.testing.assert_allclose(video.features[0].video_embeds, features.video_embeds, atol=1e-5)
            np.testing.assert_allclose(video.features[0].img_features, features.img_features, atol=1e-5)
