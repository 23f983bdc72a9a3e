"""The wheel that is published; `.ci/extras.py` installs it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.network

ROOT = Path(__file__).parent.parent
MAX_DATA_BYTES = 15_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_both_packages_and_the_embedded_model(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"xclip_export", "xclip_runtime"}
    assert "xclip_runtime/data/motion-demo/manifest.json" in names
    assert "xclip_runtime/py.typed" in names
    assert "xclip_export/py.typed" in names


def test_bundle_and_sample_stay_small(wheel):
    sizes = [i.file_size for i in zipfile.ZipFile(wheel).infolist() if i.filename.startswith("xclip_runtime/data/")]

    assert sum(sizes) <= MAX_DATA_BYTES
