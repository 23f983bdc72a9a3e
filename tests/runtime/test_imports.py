"""The runtime is light: what it imports, and when. Who may import whom is for import-linter, see pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

import xclip_runtime
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import MissingExtraError

ROOT = Path(__file__).parents[2]
OURS = [ROOT / "export/motion_demo", ROOT / "export/xclip_export", ROOT / "runtime/xclip_runtime"]
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
    """Top-level names of the absolute imports of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_classifying_a_video_loads_neither_torch_nor_its_kin():
    assert not modules_after(CLASSIFY) & HEAVY


def test_importing_the_package_loads_nothing_heavy():
    assert not modules_after("import xclip_runtime") & {*HEAVY, "numpy", "cv2", "onnxruntime", "click", "rich"}


def test_packing_a_bundle_runs_no_model():
    pack = "from xclip_runtime import pack_bundle; pack_bundle('motion-demo', sys.argv[1] + '/small')"
    code = f"import sys, tempfile; sys.argv[1:] = [tempfile.mkdtemp()]; {pack}"

    assert not modules_after(code) & {*HEAVY, "onnxruntime"}


def test_the_command_line_loads_no_model_code_before_a_command_runs():
    assert not modules_after("import xclip_runtime.cli") & {*HEAVY, "numpy", "cv2", "onnxruntime", "rich"}


def test_no_module_has_the_name_of_a_standard_or_imported_one():
    """In a traceback or an editor's list of files, `statistics.py` is the standard library's."""
    files = [file for package in OURS for file in package.rglob("*.py")]
    ours = {package.name for package in OURS}
    own = {file.parent.name if file.stem == "__init__" else file.stem for file in files}
    others = {*sys.stdlib_module_names, *(name for file in files for name in imported_by(file))} - ours

    assert len(files) > 100
    assert {"numpy", "onnxruntime", "torch", "ray"} <= others
    assert own & others == set()


def test_a_name_of_a_class_is_given_once():
    trees = [ast.parse(file.read_text("utf-8")) for package in OURS for file in package.rglob("*.py")]
    names = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    shared = sorted(name for name, count in Counter(names).items() if count > 1 and not name.startswith("_"))

    assert len(names) > 200
    assert shared == []


def test_no_module_is_longer_than_400_lines():
    files = [file for package in (*OURS, ROOT / "benchmarks", ROOT / ".ci") for file in package.rglob("*.py")]

    assert len(files) > 200
    assert [file.name for file in files if len(file.read_text("utf-8").splitlines()) > 400] == []


PUBLIC = """
    Bundle XClip __version__ pack_bundle
    Classification Encoding Event FrameUse Gap LabelScore TextScore Timings VideoFeatures VideoScores WindowResult
    EncodedLabels load_labels save_labels
    Clip FrameTransform Reading ThreadPolicy Views read_clip
    Backoff EventDetector FrameSource RawFormat Reuse Smoother StreamWindow Window open_source
    Added Hit SearchResult VideoIndex
    Limits ServeSettings
    XClipError DeviceError FramesError LabelsError MissingExtraError BulkError
    HubError HubAccessError HubNotFoundError HubUnavailableError
    BundleError BundleCorruptError BundleNotFoundError BundleSchemaError PrecisionUnavailableError
    VideoError VideoDecodeError VideoLimitError VideoNotFoundError VideoTimeoutError VideoTypeError NoFramesError
    VideoIndexError VideoIndexMismatchError VideoIndexNotFoundError
"""
WITH_RAY = ["BulkReport", "run_bulk", "xclip_deployment"]
"""Importable with the extra [ray] alone, so that neither `import *` nor `help` of the package needs Ray."""


def test_the_public_names_are_these():
    assert xclip_runtime.__all__ == sorted([*PUBLIC.split(), "sampling"])
    assert dir(xclip_runtime) == xclip_runtime.__all__


@pytest.mark.parametrize("name", [name for name in PUBLIC.split() if name != "__version__"])
def test_every_public_name_is_there_and_says_what_it_is(name):
    found = getattr(xclip_runtime, name)

    assert found.__name__ == name
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}("), "a dataclass without a docstring has its signature for one"


@pytest.mark.parametrize("name", WITH_RAY)
def test_names_for_ray_are_there_or_name_their_extra(name):
    if find_spec("ray"):
        assert getattr(xclip_runtime, name).__doc__
    else:
        with pytest.raises(MissingExtraError, match=r"xclip-onnx\[ray\]"):
            getattr(xclip_runtime, name)


def test_type_checkers_see_the_names_that_users_import():
    """The lists of the module: for type checkers, for `import *`, and for the import on first use."""
    tree = ast.parse(Path(xclip_runtime.__file__).read_text())
    typed = {a.asname or a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}

    assert typed - {"annotations", "TYPE_CHECKING", "import_module"} == {*PUBLIC.split(), "sampling", *WITH_RAY}


def test_a_star_import_works_without_any_extra_but_onnxruntime():
    scope: dict[str, object] = {}
    exec("from xclip_runtime import *", scope)

    assert set(PUBLIC.split()) <= set(scope)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = xclip_runtime.Nothing
