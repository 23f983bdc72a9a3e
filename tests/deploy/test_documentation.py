"""Operators find the files."""

from __future__ import annotations

from helpers.deploy import DEPLOY


def test_the_documentation_names_every_file():
    text = (DEPLOY.parent / "docs/serving.md").read_text()

    assert [path.name for path in DEPLOY.iterdir() if f"deploy/{path.name}" not in text] == []
