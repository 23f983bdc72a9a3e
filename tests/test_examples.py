"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers.servers import running
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label

CLIENT = Path(__file__).parent.parent / "examples" / "triton_client.py"


def test_the_triton_client_names_the_label_of_a_video(tmp_path):
    model = XClip(DEMO_BUNDLE, device="cpu")
    (tmp_path / "labels.txt").write_text("".join(f"{label}\n" for label in model.labels))

    with running(model) as server:
        for more in ([], ["--labels", tmp_path / "labels.txt"]):
            command = [sys.executable, CLIENT, DEMO_VIDEO, "--url", server.address.removeprefix("http://"), *more]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            assert done.stdout.splitlines()[1].strip().startswith(expected_label())
