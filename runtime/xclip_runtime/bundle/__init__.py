"""The folder that an export writes and a model loads: read, checked, written and described."""

from xclip_runtime.bundle.folder import (
    TOKENIZER,
    Bundle,
    FileEntry,
    GraphEntry,
    LabelSet,
    Precision,
    Profile,
    Target,
    Tower,
    sha256_of,
)

__all__ = [
    "TOKENIZER",
    "Bundle",
    "FileEntry",
    "GraphEntry",
    "LabelSet",
    "Precision",
    "Profile",
    "Target",
    "Tower",
    "sha256_of",
]
