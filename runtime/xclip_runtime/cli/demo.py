"""Command ``xclip-onnx demo``."""

from __future__ import annotations

from typing import Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json


@click.command("demo")
@opt.json_option
@opt.model_options
def command(as_json: bool, **options: Any) -> None:
    """Classify the embedded sample video with the embedded model.

    The model is motion-demo, a small X-CLIP that recognises ten motions of coloured shapes: it shows that the
    installation works.
    """
    opt.silence_native_logs()
    from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO, expected_label
    from xclip_runtime.model import XClip

    result = XClip(DEMO_BUNDLE, **options).classify(DEMO_VIDEO)
    expected = expected_label()
    correct = result.top.label == expected
    if as_json:
        document = result.to_dict()
        fields = ("video", "labels", "provider", "precision", "timings_ms")
        print_json({**{field: document[field] for field in fields}, "expected": expected, "correct": correct})
        return
    from xclip_runtime.cli.render import console, print_classification

    print_classification(result)
    console().print(f"The clip shows {expected!r}: {'recognised' if correct else 'not recognised'}.")
