"""Anything else where a bundle, a video, labels or texts are wanted: one line that says what to give."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from PIL import Image

import xclip_runtime
from xclip_runtime import (
    Bundle,
    DeviceError,
    EventDetector,
    Reading,
    StreamWindow,
    VideoIndex,
    VideoTypeError,
    Views,
    XClip,
    XClipError,
    errors,
    open_source,
    read_clip,
)
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

WRONG = [None, b"bytes", 3.5, [1], {"a": 1}, "text", object(), Image.new("RGB", (4, 4)), np.zeros((2, 2), np.float32)]
FRAMES = np.zeros((4, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    with VideoIndex.create(tmp_path_factory.mktemp("index") / "index", model) as made:
        yield made


def windows(model, **options):
    return StreamWindow(**{"window": 1.0, "hop": 0.5, "num_frames": 4, "transform": model.transform, **options})


# Each call with one argument x to get wrong, and what of WRONG it takes.
CALLS = {
    "XClip(bundle)": (lambda x, model, index: XClip(x), ()),
    "classify(video)": (lambda x, model, index: model.classify(x), ()),
    "classify_each(videos)": (lambda x, model, index: [raised(e) for e in model.classify_each(x)], ()),
    "classify_each([video])": (
        lambda x, model, index: [raised(e) for e in model.classify_each([[x]])],
        (Image.new("RGB", (4, 4)),),
    ),
    "score(texts)": (lambda x, model, index: model.score(FRAMES, x), ({"a": 1},)),
    "with_labels(labels)": (lambda x, model, index: model.with_labels(x), ({"a": 1},)),
    "text_embeds": (lambda x, model, index: model.text_embeds(x), ({"a": 1},)),
    "logits": (lambda x, model, index: model.logits(x), ()),
    "logits_batch": (lambda x, model, index: model.logits_batch(x), ()),
    "stream(source)": (lambda x, model, index: model.stream(x), ()),
    "Bundle.open": (lambda x, model, index: Bundle.open(x), ()),
    "read_clip(path)": (lambda x, model, index: read_clip(x, num_frames=4, transform=model.transform), ()),
    "open_source(source)": (lambda x, model, index: open_source(x), ()),
    "add(videos)": (lambda x, model, index: [raised(added.error) for added in index.add(x)], ()),
    "add([video])": (lambda x, model, index: [raised(added.error) for added in index.add([x])], ()),
    "delete([video])": (lambda x, model, index: index.delete([x]), ("text",)),
}


def raised(result):
    if isinstance(result, Exception):
        raise result


@pytest.mark.parametrize("call", CALLS)
def test_anything_else_gets_one_line_of_the_error_tree(call, model, index):
    function, right = CALLS[call]
    for value in WRONG:
        if any(type(value) is type(each) for each in right):
            continue
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the class is judged below
            function(value, model, index)
        error = caught.value
        own = isinstance(error, XClipError) or (type(error) is ValueError and ": " in str(error))
        assert own, f"{value!r}: {type(error).__name__}: {error}"
        assert "\n" not in str(error)
        if "video" in call or "path" in call or "source" in call:
            assert "bytes'" not in str(error), "the content of a file is not quoted"


def test_a_list_of_images_where_videos_are_wanted_is_one_video(model):
    with pytest.raises(errors.VideoTypeError, match="a list of images is one video: put it into a list"):
        model.classify_each([Image.new("RGB", (4, 4))] * 3)


def test_frames_of_a_generator_are_to_be_a_list(model):
    (error,) = model.classify_each(frame for frame in FRAMES[:1])

    assert "or a list of images" in str(error)


def test_frames_between_0_and_1_are_refused_rather_than_cut_to_0(model):
    size = model.bundle.image_size
    with pytest.raises(errors.FramesError, match=r"float32 .*give uint8 RGB"):
        model.logits(np.zeros((32, size, size, 3), np.float32))


def test_numbers_of_numpy_are_numbers(model):
    assert len(model.classify(FRAMES, top_k=np.int64(2)).labels) == 2
    assert Reading(start=np.float32(1)).start == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.classify(FRAMES, reading={"start": 1}),
        lambda model: model.features(FRAMES, reading={"start": 1}),
        lambda _: Reading(views="2x3"),
    ],
    ids=["classify", "features", "views"],
)
def test_a_reading_of_another_type_is_refused_with_what_to_give(model, call):
    with pytest.raises(TypeError, match=r"give (a Reading|Views), such as"):
        call(model)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("start", lambda m, _: Reading(start="1")),
        ("time_limit", lambda m, _: Reading(time_limit="2")),
        ("positions", lambda m, _: Views("2", 1)),
        ("workers", lambda m, _: m.classify_each([FRAMES], workers="2")),
        ("window", lambda m, _: m.windows("4")),
        ("hop", lambda m, _: m.windows(4, "1")),
        ("smooth", lambda m, _: m.stream(str(DEMO_VIDEO), smooth="x")),
        ("threshold", lambda m, _: EventDetector("x")),
        ("top_k", lambda m, i: i.search("a shape", top_k="2")),
        ("top_k", lambda m, i: i.search("a shape", top_k=1.5)),
        ("per_video", lambda m, i: i.search("a shape", per_video="1")),
    ],
)
def test_a_number_of_another_type_is_refused_by_its_name(model, index, name, call):
    with pytest.raises(ValueError, match=f"^{name} is .*: give a (whole )?number"):
        call(model, index)


def test_one_source_is_no_list_of_sources(model):
    with pytest.raises(VideoTypeError, match="put it into a list"):
        list(model.streams(str(DEMO_VIDEO)))


@pytest.mark.parametrize("device", [1, None, "gpu"])
def test_an_unknown_device_is_refused_with_those_there_are(device):
    with pytest.raises(DeviceError, match=r"unknown device .*cuda"):
        XClip(DEMO_BUNDLE, device=device)


@pytest.mark.parametrize("name", [n for n in dir(errors) if n.endswith("Error")])
def test_every_error_survives_a_pickle(name):
    cls = getattr(errors, name)
    error = cls("Search", "index") if name == "MissingExtraError" else cls("a message")

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), str(again)) == (cls, str(error))
    assert str(copy.copy(error)) == str(error)


@pytest.mark.parametrize("move", [pickle.dumps, copy.deepcopy])
def test_what_is_open_says_what_to_send_instead(move, index):
    for opened in (index, open_source(str(DEMO_VIDEO))):
        with pytest.raises(TypeError, match=r"cannot be pickled: send the .*, and open it there with"):
            move(opened)


def test_all_that_is_public_stands_in_the_api_reference():
    from helpers.markdown import ROOT

    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert [name for name in xclip_runtime.__all__ if f"::: xclip_runtime.{name}\n" not in f"{page}\n"] == [
        "__version__"
    ]
