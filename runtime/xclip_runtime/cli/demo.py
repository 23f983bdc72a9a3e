"""``xclip-onnx demo``."""

from __future__ import annotations

import json
from typing import Any

import click

from xclip_runtime.cli.options import json_option, model_options, silence_native_logs


@click.command("demo")
@json_option
@model_options
def command(as_json: bool, **model_options: Any) -> None:
    """Classify the embedded sample video with the embedded model, motion-demo.

    motion-demo is a small X-CLIP that knows coloured shapes and ten motions; it shows that everything works here.
    """
    silence_native_logs()
    from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.model import XClip  # noqa: PLC0415

    result = XClip(DEMO_BUNDLE, **model_options).classify(DEMO_VIDEO)
    expected = expected_label()
    correct = result.top.label == expected
    if as_json:
        document = result.to_dict()
        fields = ("video", "labels", "provider", "precision", "timings_ms")
        click.echo(json.dumps({**{f: document[f] for f in fields}, "expected": expected, "correct": correct}))
        return
    from xclip_runtime.cli.render import console, print_classification  # noqa: PLC0415

    print_classification(result)
    console().print(f"The clip shows {expected!r}: {'recognised' if correct else 'not recognised'}.")
