"""Model card of a bundle, written from its manifest, and the upload of both to a model hub (extra [hub])."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import Bundle
from xclip_runtime.bundle.manifest import MANIFEST
from xclip_runtime.errors import BundleCorruptError, HubError
from xclip_runtime.hub import parse_name, write_to_hub

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

CARD = "README.md"
TAGS = ("x-clip", "video-classification", "zero-shot", "onnx", "onnxruntime", "xclip-onnx")
SHOWN_LABELS = 20


@dataclass(frozen=True)
class Push:
    """An upload of a bundle.

    Raises:
        HubError: The name is not one of a repository.
    """

    bundle: Bundle
    name: str
    """Repository, such as "owner/name"."""
    revision: str | None
    """Branch; None for "main"."""

    @classmethod
    def prepare(cls, bundle: str | os.PathLike[str], name: str, revision: str | None = None) -> Push:
        """Check every file of a bundle and the name of the repository; nothing is sent.

        Raises:
            BundleError: The bundle is missing or damaged.
            HubError: The name is not one of a repository.
        """
        named = parse_name(name, revision)
        if named is None:
            message = f"{name!r} is not the name of a repository: write owner/name"
            raise HubError(message)
        opened = Bundle.open(bundle)
        problem = next((problem for _, problem in opened.problems() if problem is not None), None)
        if problem is not None:
            raise BundleCorruptError(problem)
        return cls(opened, *named)

    @property
    def card(self) -> str:
        """Model card in Markdown."""
        return model_card(self.bundle, self.name if self.revision is None else f"{self.name}@{self.revision}")

    @property
    def files(self) -> Mapping[str, int]:
        """Size of every file that is sent, in bytes, by its path in the repository."""
        own = {entry.path: entry.size for entry in self.bundle.files}
        manifest = (self.bundle.path / MANIFEST).stat().st_size
        return {CARD: len(self.card.encode()), MANIFEST: manifest, **own}

    def send(self, *, private: bool = False) -> str:
        """Send bundle and card in one commit, to a repository that is made if there is none; return the commit.

        Raises:
            HubError: The hub refuses, or does not answer.
            MissingExtraError: huggingface_hub is not installed.
        """
        return write_to_hub(self.name, self.revision, lambda api: self._send(api, private=private))

    def _send(self, api: Any, *, private: bool) -> str:
        add = import_module("huggingface_hub").CommitOperationAdd
        operations = [add(path, str(self.bundle.path / path)) for path in self.files if path != CARD]
        api.create_repo(self.name, private=private, exist_ok=True)
        if self.revision is not None:
            api.create_branch(self.name, branch=self.revision, exist_ok=True)
        commit = api.create_commit(
            self.name,
            [add(CARD, self.card.encode()), *operations],
            commit_message="Upload a bundle of xclip-onnx",
            revision=self.revision,
        )
        return str(commit.oid)


def model_card(bundle: Bundle, name: str) -> str:
    """Write the model card of a bundle, in Markdown with YAML front matter, for the repository ``name``."""
    manifest = bundle.manifest
    source: Mapping[str, Any] = manifest["source"]
    checkpoint = _line(source.get("checkpoint") or "a checkpoint")
    on_hub = source.get("revision") is not None
    licence = source.get("licence")
    front = {
        **({"license": licence} if licence else {}),
        "library_name": "xclip-onnx",
        "pipeline_tag": "video-classification",
        "tags": list(TAGS),
        **({"base_model": checkpoint} if on_hub else {}),
    }
    origin = f"[{checkpoint}](https://huggingface.co/{checkpoint})" if on_hub else f"`{checkpoint}`"
    names = [_line(label) for label in bundle.labels.names]
    more = f" … ({len(names)} in all)" if len(names) > SHOWN_LABELS else ""
    has_text = bool(bundle.graphs_of("text"))
    facts = [
        ("checkpoint", origin + (f" at `{source['revision']}`" if on_hub else "")),
        ("SHA-256 of its weights", f"`{source.get('sha256')}`"),
        ("licence", _line(licence) if licence else "not stated by the checkpoint: ask its authors"),
        ("clip", f"{bundle.num_frames} frames of {bundle.image_size} x {bundle.image_size}"),
        ("labels", ", ".join(names[:SHOWN_LABELS]) + more),
        ("made with", ", ".join(f"{tool} {version}" for tool, version in manifest["tools"].items())),
    ]
    sizes = {entry.path: entry.size for entry in bundle.files}
    graphs = [
        (
            *(f"`{graph.file}`", graph.precision, graph.target),
            f"{sum(sizes[file] for file in (graph.file, *graph.data_files)) / 1e6:.1f}",
            f"{graph.parity['max_abs_logit']:.1e}",
            f"{graph.parity['cosine']:.6f}",
            f"{graph.parity['top1_agreement']:.0%}",
        )
        for graph in bundle.graphs
    ]
    texts = f"""
With `pip install 'xclip-onnx[text]'`, labels of your own:

```bash
xclip-onnx classify video.mp4 --bundle {name} --labels "a dog running,a cat sleeping"
```
"""
    return f"""---
{_yaml(front)}
---

# {name.partition("@")[0].rpartition("/")[2]}

X-CLIP, the CLIP model for video, as ONNX graphs: a bundle of xclip-onnx, exported from {origin}.
It runs on ONNX Runtime, without PyTorch.

## Run it

```bash
pip install 'xclip-onnx[cpu,hub]'
xclip-onnx classify video.mp4 --bundle {name}
```

```python
from xclip_runtime import XClip

model = XClip.from_pretrained("{name}")
print(model.classify("video.mp4").top)
```

Only the files that the device and the precision need are downloaded, and each is checked against `{MANIFEST}`.
{texts if has_text else ""}
## Facts

{_table(("", ""), facts)}

## Graphs and parity

Every graph was compared with the checkpoint in PyTorch (fp32) on the same frames when it was exported.

{_table(("graph", "precision", "for", "MB", "largest logit difference", "cosine", "same best label"), graphs)}
"""


def _yaml(front: Mapping[str, object]) -> str:
    # JSON is YAML: quoted, no text of the manifest can end the front matter or add to it.
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in front.items())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(text: object) -> str:
    """Make one line of a cell of text, which may come from anywhere."""
    return re.sub(r"([|`<\[\]\\])", r"\\\1", " ".join(str(text).split()))
