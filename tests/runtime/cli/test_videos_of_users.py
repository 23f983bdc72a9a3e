"""The commands with videos and names as people have them."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.video_files import encode, ffmpeg
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

CASES = Path(__file__).parents[2] / "data" / "cases"
RIDE = "an orange shape circling"
NAMES = [
    "2024-05-01T12:30:45.mp4",
    "T12:30/clip.mp4",
    "Movie: Title.mp4",
    "file:x.mp4",
    "http:x.mp4",
    "img%03d.mp4",
    "[1]*?.mp4",
    "two\nlines.mp4",
    "-0Abc.mp4",
    "--json.mp4",
]


def labels(done):
    return {line["video"]: line["labels"][0]["label"] for line in done.json_lines}


def test_classify_reads_files_of_any_name(run, tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(DEMO_VIDEO)
    done = run("classify", "-b", DEMO_BUNDLE, "--json", "--", *NAMES, cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert labels(done) == dict.fromkeys(NAMES, RIDE)
    folder = run("classify", "-b", DEMO_BUNDLE, "--json", tmp_path)
    assert labels(folder) == {str(tmp_path / name): RIDE for name in NAMES}


def test_classify_takes_no_name_for_an_address_and_goes_on_behind_names_that_no_file_can_have(run, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4"
        done = run("classify", "-b", DEMO_BUNDLE, "--json", address, "x" * 300, DEMO_VIDEO, cwd=tmp_path)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert done.code == 1
    assert len(done.err.splitlines()) == 2
    *failed, last = done.json_lines
    assert [line["error"]["type"] for line in failed] == ["VideoNotFoundError"] * 2
    assert last["labels"][0]["label"] == RIDE


def test_classify_refuses_playlists_and_names_them(run, tmp_path):
    (tmp_path / "secret.mp4").symlink_to(DEMO_VIDEO)
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.txt").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    done = run("classify", "-b", DEMO_BUNDLE, "list.mp4", "list.txt", cwd=tmp_path)
    assert done.code == 2
    assert len(done.err.splitlines()) == 2
    assert "list.mp4 " in done.err
    assert "list.txt is a playlist" in done.err


@pytest.mark.parametrize(
    ("options", "frames"),
    [(("--track", "0"), 60), (("--square-pixels",), 240)],
)
def test_track_and_square_pixels_can_be_chosen(run, tmp_path, options, frames):
    small = encode(tmp_path / "small.mp4", frames=60)
    path = tmp_path / "two.mkv"
    second = ["-disposition:v:0", "0", "-disposition:v:1", "default"]
    film = encode(tmp_path / "film.mp4", frames=240)
    ffmpeg("-i", small, "-i", film, "-map", "0", "-map", "1", "-c", "copy", *second, path)
    done = run("classify", "-b", DEMO_BUNDLE, "--json", *options, path)
    assert done.code == 0
    assert done.json["frames"]["total"] == frames


def test_a_track_that_there_is_not_is_named(run):
    done = run("classify", "-b", DEMO_BUNDLE, "--track", "7", DEMO_VIDEO)
    assert done.code == 2
    assert "none of number 7" in done.err


# Pipes


def stream(path, *options):
    """`cat path | xclip-onnx stream -`, through a pipe that cannot go back."""
    command = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "stream", "-b", str(DEMO_BUNDLE)]
    done = subprocess.run(
        [*command, "--json", *options, "-"], input=path.read_bytes(), capture_output=True, check=False, timeout=120
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr.decode()


def index_at_the_end(folder):
    path = folder / "end.mp4"
    ffmpeg("-i", DEMO_VIDEO, "-c", "copy", path)
    data = path.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov")
    return path


def test_an_mp4_whose_index_comes_last_cannot_be_piped_and_the_message_says_so(tmp_path):
    code, results, errors = stream(index_at_the_end(tmp_path))
    assert code == 2
    assert results == []
    assert len(errors.splitlines()) == 1
    assert "index" in errors
    assert "faststart" in errors or "empty_moov" in errors
    assert "pip install" not in errors


@pytest.mark.parametrize("way", ["faststart", "frag_keyframe+empty_moov", "ts", "mkv"])
def test_what_can_be_read_without_going_back_can_be_piped(tmp_path, way):
    options = ["-movflags", way] if way not in ("ts", "mkv") else []
    path = tmp_path / f"piped.{way if not options else 'mp4'}"
    ffmpeg("-i", DEMO_VIDEO, "-c", "copy", *options, path)
    code, results, errors = stream(path)
    assert (code, errors) == (0, "")
    assert [result["labels"][0]["label"] for result in results] == [RIDE] * len(results) != []


@pytest.mark.parametrize("name", ["ride_interlaced.ts", "ride_interlaced.mp4"])
def test_a_stream_of_an_interlaced_file_gives_the_right_label(run, name):
    done = run("stream", "-b", DEMO_BUNDLE, "--json", CASES / name)
    assert done.code == 0
    assert {line["labels"][0]["label"] for line in done.json_lines} == {RIDE}
