"""Colours are converted by the matrix and the range that the stream or its container says, on every way through a file.

The reference is the ffmpeg command, with accurate rounding and without: its fast tables, which the reader uses as most
programs do, make 10-bit video up to 3 grey levels darker than the equations say.
"""

import itertools

import av
import numpy as np
import pytest

from helpers.video_files import ffmpeg, ffmpeg_frames, read_whole_clip, remux, rgb_of

# Numbers of ITU-T H.273, as FFmpeg has them, and the names by which x264 knows them.
MATRICES = {"bt709": (1, "bt709"), "bt601": (6, "smpte170m"), "bt470bg": (5, "bt470bg"), "bt2020": (9, "bt2020nc")}
# MP4 keeps a matrix only together with primaries and transfer, which this reader leaves alone.
PRIMARIES = "bt709"
RANGES = {"studio": (1, "tv", "off"), "full": (2, "pc", "on")}
WHERE = ("stream", "container", "both")
FILES = [
    "-".join(parts) + f".{suffix}" for suffix in ("mp4", "mkv") for parts in itertools.product(MATRICES, RANGES, WHERE)
]
# Y, Cb, Cr of eight patches: greys and saturated colours that no matrix clips.
PATCHES = ((40, 128, 128), (126, 128, 128), (220, 128, 128), (110, 90, 180))
PATCHES += ((100, 170, 90), (140, 110, 108), (110, 150, 150), (130, 96, 140))
FRAMES = 60


def chart():
    """160x128, 4:2:0: four columns and two rows of patches."""
    frame = av.VideoFrame(160, 128, "yuv420p")
    for plane, channel in zip(frame.planes, range(3), strict=True):
        half = 1 if channel == 0 else 2
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        for number, patch in enumerate(PATCHES):
            top, left = 64 * (number // 4) // half, 40 * (number % 4) // half
            lines[top : top + 64 // half, left : left + 40 // half] = patch[channel]
    return frame


def colours(image):
    """The mean of each patch, without its edges, float (8, 3)."""
    corners = itertools.product((16, 80), (12, 52, 92, 132))
    return np.array([image[top : top + 32, left : left + 16].mean((0, 1)) for top, left in corners])


def shown_by_ffmpeg(folder, names):
    """The patches of each file, as the ffmpeg command converts them: accurately, and by default."""
    paths = [folder / name for name in names]
    ways = [ffmpeg_frames(*paths, options=("-frames:v", "1", *flags)) for flags in ((), ("-sws_flags", "bicubic"))]
    return {name: [colours(way[0]) for way in shown] for name, *shown in zip(names, *ways, strict=True)}


def off(image, shown):
    """Grey levels by which the patches of a frame differ from the nearer of those that ffmpeg shows."""
    return min(np.abs(colours(image) - way).max() for way in shown)


def encode_chart(path, codec="libx264", *, matrix=2, full=0, pix_fmt="yuv420p", options=(), frames=FRAMES):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = 160, 128, pix_fmt
        context = stream.codec_context
        context.gop_size, context.colorspace, context.color_range, context.thread_count = 12, matrix, full, 1
        if matrix != 2:
            context.color_primaries = context.color_trc = 1
        for _ in range(frames):
            frame = chart()
            if pix_fmt != "yuv420p":
                frame = frame.reformat(format=pix_fmt)
            frame.colorspace, frame.color_range = matrix, full
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    options = {"crf": "5", "preset": "ultrafast"}
    plain = encode_chart(folder / "plain.mp4", options=options.items())
    in_container = []
    for name in FILES:
        matrix, span, where = name.split(".")[0].split("-")
        (number, word), (full, letters, x264_range) = MATRICES[matrix], RANGES[span]
        if where == "container":
            said = [
                "-colorspace",
                word,
                "-color_primaries",
                PRIMARIES,
                "-color_trc",
                PRIMARIES,
                "-color_range",
                letters,
            ]
            in_container += ["-c", "copy", *said, folder / name]
        elif where == "stream":
            # What x264 is told in its own words libavformat does not hear of.
            own_words = {**options, "x264-params": f"colormatrix={word}:fullrange={x264_range}"}
            encode_chart(folder / name, options=own_words.items())
        else:
            encode_chart(folder / name, options=options.items(), matrix=number, full=full)
    ffmpeg("-i", plain, *in_container)
    return folder


@pytest.fixture(scope="module")
def shown(folder):
    return shown_by_ffmpeg(folder, FILES)


@pytest.mark.parametrize("name", FILES)
def test_colours_are_those_that_ffmpeg_shows(folder, shown, name):
    seen, clip = read_whole_clip(folder / name, range(FRAMES))
    assert clip.total == FRAMES
    for image in seen:
        assert off(image, shown[name]) <= 2


@pytest.mark.parametrize("name", FILES)
def test_colours_of_frames_picked_out_are_those_that_ffmpeg_shows(folder, shown, name):
    for indices in ([37], [0, 59], [13, 14, 48]):
        seen, clip = read_whole_clip(folder / name, indices)
        assert clip.method == "selective"
        for image in seen:
            assert off(image, shown[name]) <= 2


def test_matrix_and_range_are_where_the_names_say(folder):
    for name in FILES:
        matrix, span, where = name.split(".")[0].split("-")
        path = folder / name
        head = path.read_bytes()
        # The colour box of an MP4, the Colour element of Matroska.
        assert ((b"colr" if path.suffix == ".mp4" else b"\x55\xb0") in head) == (where != "stream"), name
        with av.open(str(remux(path, folder / f"{name}.h264"))) as bare:
            frame = next(bare.decode(video=0))
            says = MATRICES[matrix][0], RANGES[span][0]
            assert (frame.colorspace, frame.color_range) == ((2, 0) if where == "container" else says), name


def test_matrices_and_ranges_differ_by_more_than_is_tolerated(shown):
    # Otherwise a reader that ignored them would pass.
    for where, suffix in itertools.product(WHERE, ("mp4", "mkv")):
        kinds = itertools.product(("bt709", "bt601", "bt2020"), RANGES)
        values = [shown[f"{matrix}-{span}-{where}.{suffix}"][0] for matrix, span in kinds]
        for one, other in itertools.combinations(values, 2):
            assert np.abs(one - other).max() > 4


OTHER_FILES = {
    "rgb.mp4": ("libx264rgb", "rgb24", 0, 0),
    "full-4-4-4.mkv": ("libx264", "yuv444p", 1, 2),
    "10-bit-bt2020.mkv": ("libx264", "yuv420p10le", 9, 1),
    "hevc-full.mp4": ("libx265", "yuv420p", 1, 2),
    "hevc-10-bit-full.mkv": ("libx265", "yuv420p10le", 9, 2),
    "vp9-bt709.webm": ("libvpx-vp9", "yuv420p", 1, 1),
    "vp9-full.webm": ("libvpx-vp9", "yuv420p", 5, 2),
    "vp9-rgb.webm": ("libvpx-vp9", "gbrp", 0, 2),
    "vp8.webm": ("libvpx", "yuv420p", 2, 0),
    "av1-full.mp4": ("libsvtav1", "yuv420p", 1, 2),
    "mpeg2-bt709.ts": ("mpeg2video", "yuv420p", 1, 1),
    "mpeg4-nothing-said.avi": ("mpeg4", "yuv420p", 2, 0),
    "mpeg4-bt709.mp4": ("mpeg4", "yuv420p", 1, 1),
    "jpeg.avi": ("mjpeg", "yuvj420p", 5, 2),
    "jpeg-4-2-2.mov": ("mjpeg", "yuvj422p", 5, 2),
    "prores-bt709.mov": ("prores_ks", "yuv422p10le", 1, 1),
    "ffv1-bt2020.mkv": ("ffv1", "yuv420p", 9, 1),
    "ffv1-full.mkv": ("ffv1", "yuv420p", 1, 2),
    "ffv1-grey-16-bit.mkv": ("ffv1", "gray16le", 2, 0),
    "ffv1-4-1-1.avi": ("ffv1", "yuv411p", 2, 0),
    "ffv1-4-1-0.avi": ("ffv1", "yuv410p", 2, 0),
    "ffv1-alpha.mkv": ("ffv1", "yuva420p", 1, 1),
    "ffv1-16-bit.mkv": ("ffv1", "yuv444p16le", 9, 2),
    "utvideo-bt709.avi": ("utvideo", "yuv422p", 1, 1),
    "png-grey.mov": ("png", "gray", 2, 0),
    "png-16-bit.mov": ("png", "rgb48be", 2, 0),
    "gif.gif": ("gif", "rgb8", 2, 0),
    "raw-yuyv.mov": ("rawvideo", "yuyv422", 5, 1),
    "raw-nv12.nut": ("rawvideo", "nv12", 1, 2),
    "raw-bgr.avi": ("rawvideo", "bgr24", 2, 0),
}
# Bits per pixel that leave flat patches as they are, by codec.
_FINE = {
    **{key: {"crf": "2", "preset": "ultrafast"} for key in ("libx264", "libx264rgb")},
    "libx265": {"crf": "2", "preset": "ultrafast", "x265-params": "log-level=none"},
    **{key: {"b": "4M", "crf": "4", "deadline": "realtime", "cpu-used": "8"} for key in ("libvpx-vp9", "libvpx")},
    **{key: {"b": "20M", "qmin": "1"} for key in ("mpeg2video", "mpeg4", "mjpeg")},
    "libsvtav1": {"preset": "12"},
}


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other-colours")
    for name, (codec, pix_fmt, matrix, full) in OTHER_FILES.items():
        options = _FINE.get(codec, {}).items()
        encode_chart(folder / name, codec, matrix=matrix, full=full, pix_fmt=pix_fmt, options=options, frames=6)
    return folder


@pytest.fixture(scope="module")
def others_shown(others):
    return shown_by_ffmpeg(others, OTHER_FILES)


@pytest.mark.parametrize("name", OTHER_FILES)
def test_colours_of_other_pixel_formats_are_those_that_ffmpeg_shows(others, others_shown, name):
    for image in read_whole_clip(others / name, range(6))[0]:
        assert off(image, others_shown[name]) <= 2


def test_the_reference_by_arithmetic_knows_the_matrices_too(folder, shown):
    for name in FILES:
        with av.open(str(folder / name)) as container:
            exact = colours(rgb_of(next(container.decode(video=0))))
        assert np.abs(exact - shown[name][0]).max() <= 1, name
