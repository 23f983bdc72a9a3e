"""The film is read, not its cover art, thumbnail or preview; another track by its number."""

import pytest

from helpers.video_files import (
    Part,
    assert_same_frames,
    decoded,
    encode,
    ffmpeg,
    number_in,
    read_whole,
    read_whole_clip,
)
from xclip_runtime.errors import NoFramesError, VideoError
from xclip_runtime.video import FrameTransform, Views, read_clip, read_views

_FINE = (("crf", "5"),)
# Frames count from another number in each track.
FILM, SMALL, THUMBNAIL = range(100, 130), range(30), 250
_BEFORE_THE_FILM = {
    "thumbnail-first.mp4": "thumb.mp4",
    "thumbnail-first.mov": "thumb.mp4",
    "thumbnail-first.mkv": "thumb.mp4",
    "jpeg-first.mov": "thumb.avi",
    "jpeg-first.mkv": "thumb.avi",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracks")
    encode(folder / "film.mp4", part=Part(options=_FINE), frames=len(FILM), first=FILM[0])
    encode(folder / "small.mp4", part=Part((96, 64), options=_FINE), frames=len(SMALL))
    encode(folder / "thumb.mp4", part=Part((64, 48), options=_FINE), frames=1, first=THUMBNAIL)
    encode(
        folder / "thumb.avi", "mjpeg", Part((320, 240), "yuvj420p", options=(("q", "1"),)), frames=1, first=THUMBNAIL
    )
    ffmpeg("-i", folder / "thumb.avi", "-c", "copy", folder / "cover.jpg")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", folder / "sound.m4a")
    mux = [
        "-i",
        folder / "film.mp4",
        "-i",
        folder / "small.mp4",
        "-i",
        folder / "thumb.mp4",
        "-i",
        folder / "thumb.avi",
    ]
    mux += ["-i", folder / "cover.jpg", "-i", folder / "sound.m4a"]
    inputs = {"film": 0, "small": 1, "thumb.mp4": 2, "thumb.avi": 3, "cover": 4, "sound": 5}

    def muxed(name, *tracks, options=()):
        maps = [part for track in tracks for part in ("-map", str(inputs[track]))]
        ffmpeg(*mux, *maps, "-c", "copy", *options, folder / name)

    for name, thumbnail in _BEFORE_THE_FILM.items():
        muxed(name, thumbnail, "film")
    second_default = ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    muxed("default-second.mkv", "small", "film", options=second_default)
    muxed("default-second.mp4", "small", "film", options=second_default)
    muxed("sound-first.mkv", "sound", "small", "film", options=second_default)
    muxed("small-default.mkv", "film", "small", options=second_default)
    muxed("cover-first.mp4", "cover", "film", options=["-disposition:v:0", "attached_pic"])
    muxed("cover-last.mp4", "film", "sound", "cover", options=["-disposition:v:1", "attached_pic"])
    attached = ["-attach", folder / "cover.jpg", "-metadata:s:t", "mimetype=image/jpeg"]
    muxed("attached.mkv", "film", options=attached)
    art = ["-disposition:v:0", "attached_pic"]
    muxed("song.m4a", "sound", "cover", options=art)
    muxed("song.mp4", "sound", "cover", options=art)
    muxed("song.mka", "sound", options=attached)
    for suffix, codec in (("mp3", "libmp3lame"), ("flac", "flac")):
        muxed(f"song.{suffix}", "sound", "cover", options=["-c:a", codec, *art])
    return folder


_BESIDE_THE_FILM = ("default-second.mkv", "default-second.mp4", "sound-first.mkv", "cover-first.mp4")
_BESIDE_THE_FILM += ("cover-last.mp4", "attached.mkv")


@pytest.mark.parametrize("name", [*_BEFORE_THE_FILM, *_BESIDE_THE_FILM])
def test_the_film_is_read(folder, name):
    seen, clip = read_whole_clip(folder / name, range(len(FILM)))
    assert clip.total == len(FILM)
    assert [number_in(image) for image in seen] == list(FILM)
    assert_same_frames(seen, decoded(folder / "film.mp4"))


def test_the_track_that_is_flagged_default_is_read_though_it_is_small(folder):
    seen, _clip = read_whole_clip(folder / "small-default.mkv", range(len(SMALL)))
    assert [number_in(image) for image in seen] == list(SMALL)
    assert seen[0].shape == (64, 96, 3)


@pytest.mark.parametrize("name", ["song.m4a", "song.mp4", "song.mka", "song.mp3", "song.flac"])
def test_a_song_with_cover_art_is_refused_as_sound(folder, name):
    with pytest.raises(NoFramesError, match=r"no video track.*sound") as error:
        read_clip(folder / name, num_frames=8, transform=FrameTransform("videox"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "track", "numbers"),
    [
        ("default-second.mkv", 0, SMALL),
        ("default-second.mkv", 1, FILM),
        ("default-second.mp4", 0, SMALL),
        ("small-default.mkv", 0, FILM),
        ("sound-first.mkv", 0, SMALL),
        ("sound-first.mkv", 1, FILM),
        ("thumbnail-first.mp4", 0, [THUMBNAIL]),
        ("thumbnail-first.mp4", 1, FILM),
        ("song.m4a", 0, [THUMBNAIL]),
    ],
)
def test_a_track_is_read_by_its_number_among_the_video_tracks(folder, name, track, numbers):
    seen, clip = read_whole_clip(folder / name, range(len(numbers)), track=track)
    assert clip.total == len(numbers)
    assert [number_in(image) for image in seen] == list(numbers)
    views = read_views(
        folder / name, num_frames=2, transform=FrameTransform("videox", 32), views=Views(1, 3), track=track
    )
    assert views.total == len(numbers)


@pytest.mark.parametrize("track", [2, 99, -1])
def test_a_track_that_there_is_not_is_named_in_one_line(folder, track):
    with pytest.raises(VideoError, match=f"2 video tracks.*{track}") as error:
        read_whole(folder / "default-second.mkv", [0], track=track)
    assert "\n" not in str(error.value)


def test_a_video_of_one_frame_is_no_thumbnail(folder):
    seen, clip = read_whole_clip(folder / "thumb.mp4", [0])
    assert clip.total == 1
    assert number_in(seen[0]) == THUMBNAIL


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_other_tracks_do_not_move_frames(tmp_path_factory, suffix):
    """Picked out of a long film between whose packets lie those of a preview and of sound."""
    folder = tmp_path_factory.mktemp("long-tracks")
    film = encode(folder / "film.mp4", part=Part(options=_FINE), frames=240)
    preview = encode(folder / "preview.mp4", part=Part((64, 48), options=_FINE), frames=240)
    ffmpeg("-f", "lavfi", "-i", "sine=d=10", "-c:a", "aac", folder / "sound.m4a")
    wanted = decoded(film)
    indices = [0, 13, 120, 121, 239]
    path = folder / f"all.{suffix}"
    tracks = ["-map", "1", "-map", "2", "-map", "0", "-c", "copy"]
    ffmpeg("-i", film, "-i", preview, "-i", folder / "sound.m4a", *tracks, path)
    seen, clip = read_whole_clip(path, indices, track=1)
    assert clip.total == 240
    assert [number_in(image) for image in seen] == indices
    assert_same_frames(seen, [wanted[index] for index in indices])
