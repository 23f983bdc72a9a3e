"""The runtime is light: what it imports, when, and where."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xclip_runtime
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO

PACKAGE = Path(xclip_runtime.__file__).parent
HEAVY = {"torch", "transformers", "optimum", "onnx", "PIL", "torchvision"}

CLASSIFY = f"""
from xclip_runtime import XClip
XClip({str(DEMO_BUNDLE)!r}, device="cpu").classify({str(DEMO_VIDEO)!r})
"""


def modules_after(code: str) -> set[str]:
    code = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def imported_by(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_classifying_a_video_loads_neither_torch_nor_its_kin():
    assert not modules_after(CLASSIFY) & HEAVY


def test_classifying_a_video_writes_nothing_to_the_users_home(tmp_path):
    """ONNX Runtime's telemetry would, from 1.29 on: a device id and a database of events to send."""
    bare = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}  # it is silent where CI variables are set

    subprocess.run([sys.executable, "-B", "-c", CLASSIFY], env=bare, check=True)

    assert list(tmp_path.rglob("*")) == []


def test_importing_the_package_loads_nothing_heavy():
    assert not modules_after("import xclip_runtime") & {*HEAVY, "numpy", "cv2", "onnxruntime", "click", "rich"}


def test_the_command_line_loads_no_model_code_before_a_command_runs():
    assert not modules_after("import xclip_runtime.cli") & {*HEAVY, "numpy", "cv2", "onnxruntime", "rich"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_the_inference_package_knows_onnxruntime_and_none_knows_torch(path):
    allowed = {"onnxruntime"} if path.parent.name == "inference" else set()

    assert not imported_by(path) & ({*HEAVY, "onnxruntime"} - allowed)


def test_the_public_names_are_these():
    results = ["Classification", "LabelScore", "TextScore", "VideoFeatures", "VideoScores"]
    others = ["Bundle", "EncodedLabels", "XClip", "XClipError", "__version__", "load_labels"]

    assert xclip_runtime.__all__ == sorted([*results, *others])
    assert all(getattr(xclip_runtime, name) is not None for name in xclip_runtime.__all__)
    assert dir(xclip_runtime) == xclip_runtime.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = xclip_runtime.Nothing
