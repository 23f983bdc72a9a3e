"""The wheel as a user installs it: with [cpu] alone, in an environment of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.network

ROOT = Path(__file__).parent.parent
UNWANTED = ("torch", "transformers", "optimum", "onnx", "PIL")
MAX_DATA_BYTES = 15_000_000


def call(*command, **options):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, **options).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of an environment with nothing but the wheel and its [cpu] extra."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=True)
    call(folder / "bin/pip", "install", "-q", f"{wheel}[cpu]")
    return folder / "bin"


def test_the_wheel_holds_both_packages_and_the_embedded_model(wheel):
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"xclip_export", "xclip_runtime"}
    assert "xclip_runtime/data/motion-demo/manifest.json" in names
    assert "xclip_runtime/py.typed" in names
    assert "xclip_export/py.typed" in names


def test_bundle_and_sample_stay_small(wheel):
    sizes = [i.file_size for i in zipfile.ZipFile(wheel).infolist() if i.filename.startswith("xclip_runtime/data/")]

    assert sum(sizes) <= MAX_DATA_BYTES


@pytest.mark.timeout(600)
def test_the_installed_wheel_classifies_the_sample_without_torch_and_its_kin(installed, tmp_path):
    document = json.loads(call(installed / "xclip-onnx", "demo", "--json", cwd=tmp_path))
    probe = f"import importlib.util; print([n for n in {UNWANTED} if importlib.util.find_spec(n)])"

    assert document["correct"]
    assert call(installed / "python", "-c", probe, cwd=tmp_path) == "[]\n"


@pytest.mark.timeout(600)
def test_export_from_that_install_says_what_is_missing(installed, tmp_path):
    done = subprocess.run(
        [installed / "xclip-onnx", "export", "x", "-o", "b"], capture_output=True, text=True, cwd=tmp_path, check=False
    )

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("pip install 'xclip-onnx[cpu,export]'")
