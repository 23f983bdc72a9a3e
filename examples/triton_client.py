"""Classify videos with Triton, OVMS or `xclip-onnx serve`; frames are read and prepared on the client.

pip install 'xclip-onnx[triton]'
python examples/triton_client.py ride.mp4 other.mp4 --url 127.0.0.1:8000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from xclip_runtime import FrameTransform, read_clip


def main() -> None:
    """Print the best labels of each video."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--url", default="127.0.0.1:8000", help="host:port of the server's HTTP endpoint")
    parser.add_argument("--model", default="xclip")
    parser.add_argument("--profile", default="videox", choices=["videox", "hf"], help="see the ensemble's config.pbtxt")
    parser.add_argument("--labels", metavar="FILE", help="labels.txt, for servers without labels, such as OVMS")
    parser.add_argument("--top-k", type=int, default=3)
    options = parser.parse_args()

    client = InferenceServerClient(options.url)
    # Shape (batch, frames, size, size, 3).
    (pixels,) = client.get_model_metadata(options.model)["inputs"]
    _, num_frames, size, _, _ = map(int, pixels["shape"])
    transform = FrameTransform(options.profile, size)
    for video in options.videos:
        clip = read_clip(video, num_frames=num_frames, transform=transform).frames[None]
        tensor = InferInput(pixels["name"], list(clip.shape), "UINT8")
        tensor.set_data_from_numpy(clip)
        best = top_labels(client, options.model, tensor, options.top_k, options.labels)
        print(video, *(f"{label} ({logit:.2f})" for label, logit in best), sep="\n  ")


def top_labels(
    client: InferenceServerClient, model: str, tensor: InferInput, top_k: int, labels_file: str | None
) -> list[tuple[str, float]]:
    """Return the best labels of one clip with their logits, named by the server or by a file."""
    requested = InferRequestedOutput("logits_per_video", class_count=0 if labels_file else top_k)
    answer = client.infer(model, [tensor], outputs=[requested]).as_numpy("logits_per_video")
    if labels_file is None:
        # The classification extension: b"20.149548:47:an orange shape circling".
        rows = (text.decode().split(":", 2) for text in answer.ravel())
        return [(label, float(logit)) for logit, _, label in rows]
    labels = Path(labels_file).read_text(encoding="utf-8").splitlines()
    return [(labels[i], float(answer[0, i])) for i in np.argsort(-answer[0])[:top_k]]


if __name__ == "__main__":
    main()
