"""Addresses are told from files, and shown without their passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from xclip_runtime.util.addresses import is_address, located, without_passwords


@pytest.mark.parametrize("name", ["rtsp://camera/1", "HTTP://host/a.mp4", "s3://bucket/a.mp4", "udp://@239.0.0.1:1"])
def test_a_scheme_makes_an_address(name):
    assert is_address(name)


@pytest.mark.parametrize("name", ["a.mp4", "/a/b:c.mp4", "C:/a.mp4", "://a", "folder/rtsp://a", ""])
def test_anything_else_is_a_file(name):
    assert not is_address(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@camera/1", "rtsp://me:***@camera/1"),
        ("rtsp://:secret@camera/1", "rtsp://:***@camera/1"),
        ("rtsp://me:se@cr:et@camera/1", "rtsp://me:***@camera/1"),
        ("http://camera/v?user=me&pwd=secret&w=1", "http://camera/v?user=me&pwd=***&w=1"),
        ("https://h/a.mp4?X-Amz-Signature=secret&x=1", "https://h/a.mp4?X-Amz-Signature=***&x=1"),
        ("cannot open 'http://h/?TOKEN=secret': no", "cannot open 'http://h/?TOKEN=***': no"),
        ("one://b:secret@c and two://e:secret@f", "one://b:***@c and two://e:***@f"),
        ("rtsp://me:se/cret@camera/1", "rtsp://me:***@camera/1"),
        ("rtsp://camera:554/a@b", "rtsp://camera:554/a@b"),
        ("rtsp://camera:554/monkey=1?width=3", "rtsp://camera:554/monkey=1?width=3"),
        ("me:word@host is no address", "me:word@host is no address"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text, shown):
    assert without_passwords(text) == shown
    assert without_passwords(shown) == shown


def test_files_of_a_list_are_relative_to_its_folder_and_addresses_are_not():
    assert located(Path("/lists"), "a.mp4") == "/lists/a.mp4"
    assert located(Path("/lists"), "http://me:secret@h/a.mp4") == "http://me:***@h/a.mp4"


@pytest.mark.parametrize(
    "text",
    [
        "a" * 30_000 + "://" + "a" * 30_000,
        "x://a:" * 10_000,
        "@" + "x://a:" * 10_000,
        "x://a:b" + "@/:" * 20_000,
        "x://" + "?a-" * 20_000,
    ],
)
def test_text_that_was_made_to_take_long_is_searched_at_once(text):
    # Within a second; a minute and more where every letter may begin an address that is looked for to the end.
    assert len(without_passwords(text)) <= len(text)
