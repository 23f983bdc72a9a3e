"""A file or folder is replaced whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from xclip_runtime.errors import OutputLockedError
from xclip_runtime.util.atomic import replaced_folder, write_bytes, write_json


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


def fail_when_replacing(monkeypatch, name):
    """Let ``Path.<name>`` fail as on a full disk when the new content takes its place."""
    original = getattr(Path, name)

    def fail(self, target):
        if self.name != "old" and Path(target).name == "target":
            message = "disk trouble"
            raise OSError(message)
        return original(self, target)

    monkeypatch.setattr(Path, name, fail)


def test_a_file_is_created_and_replaced(tmp_path):
    for content in (b"one", b"two"):
        write_bytes(tmp_path / "target", content)
        assert (tmp_path / "target").read_bytes() == content
    assert left_in(tmp_path) == ["target"]


def test_a_file_that_cannot_be_replaced_keeps_its_content(tmp_path, monkeypatch):
    write_bytes(tmp_path / "target", b"old")
    fail_when_replacing(monkeypatch, "replace")

    with pytest.raises(OSError, match="disk trouble"):
        write_bytes(tmp_path / "target", b"new")
    assert (tmp_path / "target").read_text() == "old"
    assert left_in(tmp_path) == ["target"]


def test_json_is_readable_utf_8_with_a_final_newline(tmp_path):
    write_json(tmp_path / "x.json", {"label": "tanzt 踊る"})

    assert (tmp_path / "x.json").read_text("utf-8") == '{\n  "label": "tanzt 踊る"\n}\n'


def test_a_file_name_of_any_bytes_survives_json(tmp_path):
    write_json(tmp_path / "x.json", ["\udcff.mp4"])

    assert json.loads((tmp_path / "x.json").read_bytes()) == ["\udcff.mp4"]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep/target"
    with replaced_folder(target) as folder:
        (folder / "x").touch()
        assert not target.exists()

    assert left_in(target) == ["x"]
    assert left_in(target.parent) == ["target"]


def test_a_folder_has_the_permissions_of_any_new_folder(tmp_path):
    with replaced_folder(tmp_path / "target"):
        pass
    (tmp_path / "other").mkdir()

    assert (tmp_path / "target").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_folder_is_replaced_and_leaves_no_trace_of_the_old(tmp_path):
    for name in ("old", "new"):
        with replaced_folder(tmp_path / "target") as folder:
            (folder / name).touch()

    assert left_in(tmp_path / "target") == ["new"]
    assert left_in(tmp_path) == ["target"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_in_the_block_keeps_the_old_folder(tmp_path, error):
    (tmp_path / "target/old").mkdir(parents=True)

    with pytest.raises(error), replaced_folder(tmp_path / "target"):
        raise error
    assert left_in(tmp_path / "target") == ["old"]
    assert left_in(tmp_path) == ["target"]


def test_an_exchange_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    (tmp_path / "target/old").mkdir(parents=True)
    fail_when_replacing(monkeypatch, "rename")

    with pytest.raises(OSError, match="disk trouble"), replaced_folder(tmp_path / "target"):
        pass
    assert left_in(tmp_path / "target") == ["old"]
    assert left_in(tmp_path) == ["target"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / ".target.partial/new/half").mkdir(parents=True)
    (tmp_path / "target.partial").mkdir()

    with replaced_folder(tmp_path / "target") as folder:
        assert not left_in(folder)
    assert left_in(tmp_path) == ["target", "target.partial"]


def test_a_target_that_a_killed_process_had_moved_aside_is_put_back(tmp_path):
    (tmp_path / ".target.partial/old/content").mkdir(parents=True)

    with pytest.raises(RuntimeError), replaced_folder(tmp_path / "target"):
        raise RuntimeError
    assert left_in(tmp_path / "target") == ["content"]
    assert left_in(tmp_path) == ["target"]


def test_two_at_once_are_refused(tmp_path):
    with replaced_folder(tmp_path / "target") as folder:
        (folder / "x").touch()
        with (
            pytest.raises(OutputLockedError, match="is being written by process"),
            replaced_folder(tmp_path / "target"),
        ):
            pass
    assert left_in(tmp_path / "target") == ["x"]


def test_errors_of_the_system_name_what_was_to_be_written(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_bytes(tmp_path / "folder", b"")
    assert caught.value.filename == str(tmp_path / "folder")

    with pytest.raises(FileNotFoundError) as caught, replaced_folder(tmp_path / "target") as folder:
        (folder / "no/graph").touch()
    assert caught.value.filename == str(tmp_path / "target/no/graph")

    with pytest.raises(OSError, match="No space") as caught, replaced_folder(tmp_path / "target"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "target")
    assert left_in(tmp_path) == ["folder"]
