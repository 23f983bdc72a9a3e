"""Without the extra [triton]."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["tritonclient", "google.protobuf"])
def test_the_error_names_the_extra(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; import xclip_runtime.integrations.triton_repository"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "MissingExtraError" in done.stderr.splitlines()[-1]
    assert "pip install 'xclip-onnx[triton]'" in done.stderr
