"""Recordings as they come, cut, joined, with clocks that wrap and indexes that lie: the frames of a full decode.

In one part and in three, with one thread and with several: none may move a frame.
"""

import pytest

from helpers.video_files import (
    assert_same_frames,
    decoded,
    ffmpeg,
    film_input,
    number_in,
    raw_film,
    read_whole_clip,
)
from xclip_runtime.video.threads import ThreadPolicy

POLICIES = {
    "by-size": None,
    "three-parts": ThreadPolicy(cpus=3, pixels_of_a_part=1),
    "three-threads": ThreadPolicy(cpus=3, small={}, small_otherwise=0, max_parts=1),
}
_X264 = ["-c:v", "libx264", "-crf", "5", "-preset", "veryfast", "-bf", "2", "-g", "24"]
_OPEN_GOP = [*_X264, "-x264-params", "open-gop=1:bframes=3:scenecut=0"]
_NO_B_FRAMES = [*_X264, "-bf", "0"]
_PYRAMID = [*_X264, "-x264-params", "bframes=7:b-pyramid=strict:scenecut=0"]
_MPEG2 = ["-c:v", "mpeg2video", "-b:v", "6M", "-bf", "2", "-g", "12"]
# Filler that brings a small film to more bytes than a reader would hold in memory.
_LARGE = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "24", "-b:v", "20M", "-minrate", "20M"]
_LARGE += ["-maxrate", "20M", "-bufsize", "4M", "-x264-params", "nal-hrd=cbr:filler=1:open-gop=1"]


class Studio:
    """Encodes `painted` frames and treats the files badly."""

    def __init__(self, folder, shared):
        self._folder = folder
        self._shared = shared

    def film(self, name, *options, frames=100, first=0, at=0.0):
        path = self._folder / name
        ffmpeg(*film_input(), *options, "-output_ts_offset", at, path, stdin=raw_film(frames, first=first))
        return path

    def copy(self, source, name, *options, before=()):
        ffmpeg(*before, "-i", source, "-c", "copy", *options, self._folder / name)
        return self._folder / name

    def write(self, name, data):
        (self._folder / name).write_bytes(data)
        return self._folder / name

    def two_recordings(self, suffix, codec, at):
        """One behind the other, the clock of the second as it comes."""
        one = self.film(f"one.{suffix}", *codec).read_bytes()
        two = self.film(f"two.{suffix}", *codec, first=100, at=at).read_bytes()
        return self.write(f"both.{suffix}", one + two[13 if suffix == "flv" else 0 :])

    def cut_out(self, suffix, codec):
        """From the middle of a group to the middle of another."""
        data = self.film(f"whole.{suffix}", *codec, frames=200).read_bytes()
        third = len(data) // 3 // 188 * 188
        return self.write(f"cut.{suffix}", data[third : 2 * third])

    def reordering(self, name):
        """The depth of frame reordering changes in the middle."""
        parts = [
            self.film(f"{place}.ts", *codec, frames=50, first=50 * place, at=2 * place).read_bytes()
            for place, codec in enumerate((_NO_B_FRAMES, _PYRAMID, _NO_B_FRAMES))
        ]
        path = self.write("reordering.ts", b"".join(parts))
        return path if name.endswith("ts") else self.copy(path, name)

    def with_sync_samples(self, change):
        """An MP4 whose table of keyframes was changed."""
        data = bytearray(self.film("keyframes.mp4", *_X264).read_bytes())
        change(data, data.index(b"stss"))
        return self.write("changed.mp4", data)

    def trimmed(self, name, *options):
        """From 1.3 s on, which an MP4 does by an edit list and others by leaving packets out."""
        return self.copy(self.film("untrimmed.mp4", *_X264, frames=200), name, *options, before=("-ss", "1.3"))

    def large(self, name, *options, before=()):
        path = self._shared / "large.mp4"
        if not path.exists():
            ffmpeg(*film_input(), *_LARGE, path, stdin=raw_film(250))
        assert path.stat().st_size > 20_000_000
        return self.copy(path, name, *options, before=before)


def _no_table(data, place):
    data[place : place + 4] = b"free"


def _wrong_table(data, place):
    for entry in range(place + 16, place + 28, 4):
        number = int.from_bytes(data[entry : entry + 4], "big")
        data[entry : entry + 4] = (number + 3).to_bytes(4, "big")


RECORDINGS = {
    "two-that-overlap.ts": lambda make: make.two_recordings("ts", _X264, at=0.013),
    "two-with-a-gap.ts": lambda make: make.two_recordings("ts", _X264, at=1000),
    "two-that-overlap.mpg": lambda make: make.two_recordings("mpg", _MPEG2, at=0.013),
    "two-that-overlap.flv": lambda make: make.two_recordings("flv", _X264, at=0.013),
    "clock-wraps.ts": lambda make: make.film("wraps.ts", *_X264, at=2**33 / 90_000 - 2),
    "clock-wraps.mpg": lambda make: make.film("wraps.mpg", *_MPEG2, at=2**33 / 90_000 - 2),
    "cut-out.ts": lambda make: make.cut_out("ts", _X264),
    "cut-out-mpeg2.ts": lambda make: make.cut_out("ts", _MPEG2),
    "cut-out.mpg": lambda make: make.cut_out("mpg", _MPEG2),
    "cut-out-open-gop.ts": lambda make: make.cut_out("ts", _OPEN_GOP),
    "reordering-changes.ts": lambda make: make.reordering("changes.ts"),
    "reordering-changes.mkv": lambda make: make.reordering("changes.mkv"),
    "reordering-changes.mp4": lambda make: make.reordering("changes.mp4"),
    "no-table-of-keyframes.mp4": lambda make: make.with_sync_samples(_no_table),
    "wrong-table-of-keyframes.mp4": lambda make: make.with_sync_samples(_wrong_table),
    "trimmed.mp4": lambda make: make.trimmed("trimmed.mp4"),
    "trimmed-at-both-ends.mp4": lambda make: make.trimmed("trimmed.mp4", "-t", "3"),
    "trimmed.mkv": lambda make: make.trimmed("trimmed.mkv"),
    "trimmed.ts": lambda make: make.trimmed("trimmed.ts"),
    "trimmed.avi": lambda make: make.trimmed("trimmed.avi"),
    "large.mp4": lambda make: make.large("large.mp4"),
    "large.mkv": lambda make: make.large("large.mkv"),
    "large.ts": lambda make: make.large("large.ts"),
    "large-fragmented.mp4": lambda make: make.large("large.mp4", "-movflags", "frag_keyframe+empty_moov"),
    "large-trimmed.mp4": lambda make: make.large("large.mp4", before=("-ss", "1.3")),
}


@pytest.fixture(scope="module", params=RECORDINGS)
def recording(request, tmp_path_factory, clip_folder):
    """A file, and its frames by PyAV's own full decode."""
    path = RECORDINGS[request.param](Studio(tmp_path_factory.mktemp("recording"), clip_folder))
    return path, decoded(path)


@pytest.mark.parametrize("policy", POLICIES)
def test_frames_are_those_of_a_full_decode(recording, policy):
    path, wanted = recording
    last = len(wanted) - 1
    for indices in (
        [0],
        [last // 3],
        [last],
        [1, last // 2, last // 2 + 1],
        [5, last // 4, last // 3, last // 2 + 7, last - 2],
    ):
        seen, clip = read_whole_clip(path, indices, policy=POLICIES[policy])
        assert clip.total == len(wanted)
        assert [number_in(image) for image in seen] == [number_in(wanted[index]) for index in indices]
        # Where a file begins in the middle of a group, what its first frames depend on is left to chance.
        if "cut" not in path.name:
            assert_same_frames(seen, [wanted[index] for index in indices])
