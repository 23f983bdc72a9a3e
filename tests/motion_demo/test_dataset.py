import av
import pytest
from click.testing import CliRunner

from motion_demo.dataset import CODECS, SPLITS, main, write_clip, write_dataset
from motion_demo.labels import HELD_OUT, LABELS, SEEN


def test_clips_are_videos_of_many_sizes_lengths_and_codecs(tmp_path):
    formats = []
    for seed in range(100, 112):
        with av.open(str(write_clip(tmp_path / str(seed), seed, LABELS[seed - 100]))) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in container.decode(stream))
            formats.append((stream.codec_context.name, (stream.width, stream.height), frames))
    codecs, sizes, lengths = map(set, zip(*formats, strict=True))
    assert codecs == {"h264", "mpeg4", "vp9"}
    assert len(CODECS) == len(codecs)
    assert len(sizes) > 3
    assert len(lengths) > 3
    assert lengths <= set(range(32, 91))


def test_a_dataset_has_the_layout_of_hmdb51(tmp_path):
    labels = SEEN[:2]
    clips = list(write_dataset(tmp_path / "data", labels, 3, first_seed=0))

    names = [label.text.replace(" ", "_") for label in labels]
    assert [clip.parent.name for clip in clips] == [names[0], names[1], names[0]]
    assert (tmp_path / "data" / SPLITS / f"{names[0]}_test_split1.txt").read_text().splitlines() == [
        f"{clips[0].name} 2 ",
        f"{clips[2].name} 2 ",
    ]


def test_seen_and_held_out_pairs_are_kept_apart(tmp_path):
    done = CliRunner().invoke(main, [str(tmp_path / "clips"), "--n", "2"])

    assert done.exit_code == 0, done.output
    for name, labels in (("seen", SEEN), ("held_out", HELD_OUT)):
        folders = {path.name for path in (tmp_path / "clips" / name).iterdir()} - {SPLITS}
        assert folders == {label.text.replace(" ", "_") for label in labels[:2]}


@pytest.mark.parametrize("args", [["--first-seed", "7"], ["--n", "0"], ["--n", str(2**31)]])
def test_seeds_of_the_training_are_refused(tmp_path, args):
    assert CliRunner().invoke(main, [str(tmp_path / "clips"), *args]).exit_code == 2


def test_an_existing_folder_is_left_alone(tmp_path):
    assert CliRunner().invoke(main, [str(tmp_path), "--n", "1"]).exit_code == 2
    assert not list(tmp_path.iterdir())
