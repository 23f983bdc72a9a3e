"""Arguments of the wrong type: one line of the error tree, wherever they are given."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from PIL import Image

import xclip_runtime
from xclip_runtime import (
    Backoff,
    Bundle,
    EncodedLabels,
    EventDetector,
    FrameTransform,
    Limits,
    RawFormat,
    Reading,
    ServeSettings,
    Smoother,
    StreamWindow,
    VideoIndex,
    Views,
    XClip,
    XClipError,
    errors,
    load_labels,
    open_source,
    read_clip,
    save_labels,
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
    **{
        f"XClip({name})": (lambda x, model, index, name=name: XClip(DEMO_BUNDLE, **{name: x}), right)
        for name, right in {
            "device": (),
            "precision": (None,),
            "profile": (None,),
            "intra_op_threads": (None,),
            "optimize_for": (),
            "batch_size": (),
            "provider_options": (None,),
            "cache_dir": (None, "text"),
            "providers": (None,),
            "session_options": (None, {"a": 1}),
        }.items()
    },
    **{
        f"{name}({option})": (
            lambda x, model, index, name=name, option=option: getattr(model, name)(FRAMES, **{option: x}),
            (None,),
        )
        for name in ("classify", "features", "embed")
        for option in ("reading", *(["top_k", "workers"] if name == "classify" else []))
    },
    **{
        f"{name}_each({option})": (
            lambda x, model, index, name=name, option=option: getattr(model, f"{name}_each")([FRAMES], **{option: x}),
            (None,),
        )
        for name in ("classify", "features", "embed")
        for option in ("reading", "workers")
    },
    "classify(video)": (lambda x, model, index: model.classify(x), ()),
    "classify_each(videos)": (lambda x, model, index: [raised(e) for e in model.classify_each(x)], ()),
    "classify_each([video])": (
        lambda x, model, index: [raised(e) for e in model.classify_each([[x]])],
        (Image.new("RGB", (4, 4)),),
    ),
    "score(texts)": (lambda x, model, index: model.score(FRAMES, x), ({"a": 1},)),
    "score(reading)": (lambda x, model, index: model.score(FRAMES, ["a"], reading=x), (None,)),
    "with_labels(labels)": (lambda x, model, index: model.with_labels(x), ({"a": 1},)),
    "with_labels(template)": (lambda x, model, index: model.with_labels(["a"], x), ()),
    "text_embeds": (lambda x, model, index: model.text_embeds(x), ({"a": 1},)),
    "logits": (lambda x, model, index: model.logits(x), ()),
    "logits_batch": (lambda x, model, index: model.logits_batch(x), ()),
    "features_batch": (lambda x, model, index: model.features_batch(x), ()),
    "prompt_logits(features)": (lambda x, model, index: model.prompt_logits(x, np.zeros((1, 512), np.float32)), ()),
    "prompt_logits(text_embeds)": (lambda x, model, index: model.prompt_logits(model.features(FRAMES), x), ()),
    "windows(window)": (lambda x, model, index: model.windows(x), (3.5,)),
    "windows(hop)": (lambda x, model, index: model.windows(4.0, x), (None, 3.5)),
    "stream(source)": (lambda x, model, index: model.stream(x), ()),
    "stream(top_k)": (lambda x, model, index: model.stream(str(DEMO_VIDEO), top_k=x), (None,)),
    "stream(smooth)": (lambda x, model, index: model.stream(str(DEMO_VIDEO), smooth=x), (3.5,)),
    "Bundle.open": (lambda x, model, index: Bundle.open(x), ()),
    **{
        f"Reading({name})": (lambda x, model, index, name=name: Reading(**{name: x}), right)
        for name, right in {
            "start": (3.5,),
            "end": (None, 3.5),
            "track": (None,),
            "max_pixels": (None,),
            "max_duration": (None, 3.5),
            "time_limit": (None, 3.5),
            "decoder": (),
            "policy": (None,),
            "views": (),
        }.items()
    },
    "Views(clips)": (lambda x, model, index: Views(x), ()),
    "Views.parse": (lambda x, model, index: Views.parse(x), ()),
    "FrameTransform(profile)": (lambda x, model, index: FrameTransform(x), ()),
    "FrameTransform(size)": (lambda x, model, index: FrameTransform("hf", x), ()),
    "read_clip(path)": (lambda x, model, index: read_clip(x, num_frames=4, transform=model.transform), ()),
    "read_clip(num_frames)": (lambda x, model, index: read_clip(DEMO_VIDEO, num_frames=x, transform=np.asarray), ()),
    "load_labels": (lambda x, model, index: load_labels(x), ()),
    "save_labels(labels)": (lambda x, model, index: save_labels(x, "labels"), ()),
    "save_labels(path)": (
        lambda x, model, index: save_labels(EncodedLabels(("a",), ("{}",), np.zeros((1, 2), np.float32), ""), x),
        ("text",),
    ),
    "StreamWindow(window)": (lambda x, model, index: windows(model, window=x), (3.5,)),
    "StreamWindow(num_frames)": (lambda x, model, index: windows(model, num_frames=x), ()),
    "Smoother": (lambda x, model, index: Smoother(x), (3.5,)),
    "EventDetector(threshold)": (lambda x, model, index: EventDetector(x), ()),
    "EventDetector.update": (lambda x, model, index: EventDetector().update(x), ()),
    "open_source(source)": (lambda x, model, index: open_source(x), ()),
    "open_source(raw)": (lambda x, model, index: open_source(str(DEMO_VIDEO), raw=x), (None,)),
    "open_source(backoff)": (lambda x, model, index: open_source(str(DEMO_VIDEO), backoff=x), (None,)),
    "RawFormat(width)": (lambda x, model, index: RawFormat(x, 4, 25.0), ()),
    "RawFormat.parse": (lambda x, model, index: RawFormat.parse(x), ()),
    "Backoff": (lambda x, model, index: Backoff(x), (3.5,)),
    "VideoIndex.open(folder)": (lambda x, model, index: VideoIndex.open(x, model), ()),
    "VideoIndex.open(model)": (lambda x, model, index: VideoIndex.open(index.store.folder, x), ()),
    "VideoIndex.create(model)": (lambda x, model, index: VideoIndex.create(index.store.folder, x), ()),
    "add(videos)": (lambda x, model, index: [raised(added.error) for added in index.add(x)], ()),
    "add([video])": (lambda x, model, index: [raised(added.error) for added in index.add([x])], ()),
    "add(window)": (lambda x, model, index: index.add([DEMO_VIDEO], window=x), (None, 3.5)),
    "add(workers)": (lambda x, model, index: index.add([DEMO_VIDEO], workers=x), (None,)),
    "delete([video])": (lambda x, model, index: index.delete([x]), ("text",)),
    "search(text)": (lambda x, model, index: index.search(x), ("text",)),
    "search(top_k)": (lambda x, model, index: index.search("text", x), ()),
    "search(shortlist)": (lambda x, model, index: index.search("text", shortlist=x), ()),
    "search(per_video)": (lambda x, model, index: index.search("text", per_video=x), (None,)),
    "Limits(labels)": (lambda x, model, index: Limits(labels=x), ()),
    "ServeSettings(batch_size)": (lambda x, model, index: ServeSettings(batch_size=x), ()),
}


def raised(result):
    if isinstance(result, Exception):
        raise result


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_type_gets_one_line_of_the_error_tree(call, model, index):
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


def test_an_unknown_option_is_named_with_the_options_that_there_are():
    with pytest.raises(TypeError, match="XClip got an unexpected keyword argument 'gpu': it takes bundle, device"):
        XClip(DEMO_BUNDLE, gpu=True)


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
