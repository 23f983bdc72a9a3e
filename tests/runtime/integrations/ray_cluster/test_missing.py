"""Without Ray."""

from __future__ import annotations

import subprocess
import sys


def test_the_error_names_the_extra():
    code = "import sys; sys.modules['ray'] = None; import xclip_runtime; xclip_runtime.run_bulk"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "MissingExtraError" in done.stderr.splitlines()[-1]
    assert "pip install 'xclip-onnx[ray]'" in done.stderr
