"""JSON on standard output and error lines on standard error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping


def json_text(document: Mapping[str, Any], indent: int | None = None) -> str:
    """Serialise as readable UTF-8; bytes of file names that are not UTF-8 become escapes."""
    return json.dumps(document, ensure_ascii=False, indent=indent).encode(errors="backslashreplace").decode()


def print_json(document: Mapping[str, Any], indent: int | None = None) -> None:
    """Print a document on standard output, on one line unless ``indent`` is given."""
    click.echo(json_text(document, indent))


def error_document(error: Exception) -> dict[str, str]:
    """Describe an error as ``{"type", "message"}``."""
    return {"type": type(error).__name__, "message": str(error)}


def print_error(error: object) -> None:
    """Print one line on standard error."""
    click.echo(f"xclip-onnx: {error}", err=True)
