"""API keys: their names, their files, and that none opens a server by mistake."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from xclip_runtime.cli.serve import _keys, command
from xclip_runtime.serve.api_keys import ApiKeys, parse_keys


def test_keys_have_names_and_two_keys_may_share_one_while_they_change():
    keys = ApiKeys(["ci:one", "ci:two", "three"])

    assert [keys.name(key) for key in ("one", "two", "three", "ci:one", "")] == ["ci", "ci", "key3", None, None]


def test_replaced_keys_are_refused_at_once():
    keys = ApiKeys(["old"])
    assert not keys.replace(["old", "one more"])
    assert keys.replace(["new"])

    assert keys.accepts("new")
    assert not keys.accepts("old")


def test_a_file_has_a_key_a_line_and_comments():
    assert parse_keys("# for CI\nci:one\n\n two \n") == ("ci:one", "two")


@pytest.mark.parametrize("given", ["", " ", ",", " ,\t\n", "# none"])
def test_a_variable_or_file_without_a_key_never_opens_the_server(given, monkeypatch, tmp_path):
    file = tmp_path / "keys"
    file.write_text(given)
    monkeypatch.setenv("XCLIP_ONNX_API_KEYS", given)

    with pytest.raises(click.UsageError, match="holds no key"):
        _keys(None)
    with pytest.raises(click.UsageError, match="holds no key"):
        _keys(str(file))


def test_a_variable_holds_keys_between_commas_or_spaces(monkeypatch):
    monkeypatch.setenv("XCLIP_ONNX_API_KEYS", "a:one, two")

    assert _keys(None) == ("a:one", "two")


def test_the_variable_of_keys_is_no_name_of_a_file(monkeypatch):
    monkeypatch.setattr(
        "xclip_runtime.cli.serve._keys", lambda file: (_ for _ in ()).throw(click.UsageError(f"file={file}"))
    )
    told = CliRunner().invoke(command, ["-b", "motion-demo"], env={"XCLIP_ONNX_API_KEYS": "one"})

    assert "file=None" in told.output
