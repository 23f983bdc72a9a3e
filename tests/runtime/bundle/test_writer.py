"""A bundle is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from xclip_runtime.bundle.writer import bundle_folder, write_manifest
from xclip_runtime.errors import BundleError

SOURCE = Path("checkpoint")

FACTS = {"model": {"num_frames": 8, "image_size": 224, "projection_dim": 4}, "graphs": {}}


def write_bundle(target, content="new", source=SOURCE, **options):
    with bundle_folder(target, source=source, overwrite=options.pop("overwrite", False)) as folder:
        (folder / "labels.json").write_text(content)
        write_manifest(folder, FACTS)


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_bundle_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "deep/bundle"
    with bundle_folder(target, source=SOURCE, overwrite=False) as folder:
        assert not target.exists()
        write_manifest(folder, FACTS)

    assert left_in(target) == ["manifest.json"]
    assert left_in(target.parent) == ["bundle"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_export_that_fails_or_is_interrupted_leaves_nothing(tmp_path, error):
    def fail(folder):
        (folder / "half").write_text("written")
        raise error

    with pytest.raises(error), bundle_folder(tmp_path / "bundle", source=SOURCE, overwrite=False) as folder:
        fail(folder)

    assert left_in(tmp_path) == []


def test_an_existing_bundle_is_refused_before_any_work(tmp_path):
    write_bundle(tmp_path / "bundle", "old")

    with pytest.raises(BundleError, match="--overwrite"):
        write_bundle(tmp_path / "bundle")
    assert (tmp_path / "bundle/labels.json").read_text() == "old"


def test_overwrite_replaces_a_bundle_and_leaves_no_trace_of_the_old(tmp_path):
    write_bundle(tmp_path / "bundle", "old")
    write_bundle(tmp_path / "bundle", "new", overwrite=True)

    assert (tmp_path / "bundle/labels.json").read_text() == "new"
    assert left_in(tmp_path) == ["bundle"]


def test_a_failed_overwrite_keeps_the_old_bundle(tmp_path):
    write_bundle(tmp_path / "bundle", "old")

    with pytest.raises(RuntimeError), bundle_folder(tmp_path / "bundle", source=SOURCE, overwrite=True):
        raise RuntimeError
    assert (tmp_path / "bundle/labels.json").read_text() == "old"
    assert left_in(tmp_path) == ["bundle"]


def test_a_rename_that_fails_puts_the_old_bundle_back(tmp_path, monkeypatch):
    write_bundle(tmp_path / "bundle", "old")
    rename = type(tmp_path).rename

    def fail_for_the_new(self, target):
        if target == tmp_path / "bundle" and (self / "labels.json").read_text() == "new":
            message = "disk trouble"
            raise OSError(message)
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", fail_for_the_new)
    with pytest.raises(OSError, match="disk trouble"):
        write_bundle(tmp_path / "bundle", "new", overwrite=True)
    assert (tmp_path / "bundle/labels.json").read_text() == "old"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/me.jpg").write_text("me")

    with pytest.raises(BundleError, match="is not a bundle"):
        write_bundle(tmp_path / "photos", overwrite=overwrite)
    assert left_in(tmp_path / "photos") == ["me.jpg"]


def test_a_bundle_that_holds_its_own_source_is_never_replaced(tmp_path):
    write_bundle(tmp_path / "bundle", "old")
    checkpoint = tmp_path / "bundle/checkpoint"
    checkpoint.mkdir()

    with pytest.raises(BundleError, match="would be lost"):
        write_bundle(tmp_path / "bundle", source=checkpoint, overwrite=True)
    assert checkpoint.is_dir()


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "bundle").mkdir()
    write_bundle(tmp_path / "bundle")

    assert "manifest.json" in left_in(tmp_path / "bundle")
