"""Log lines that no client can forge."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from helpers.servers import eventually
from xclip_runtime.serve.logs import JsonFormatter, TextFormatter, request_id

HOSTILE = ["\n", "\r", "\x1b[2J", "\0", "\x7f", "\x9b31m", "\u2028", "\u202e", "\udcff"]


def record(message, fields=None, exc_info=None):
    made = logging.LogRecord("xclip", logging.INFO, __file__, 1, message, (), exc_info)
    made.fields = fields or {}
    return made


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("where", ["message", "field", "id", "error"])
def test_what_a_client_sends_stays_in_its_line_and_leaves_the_terminal_alone(formatter, hostile, where):
    text = f"a{hostile}12:00:00 ready"
    token = request_id.set(text if where == "id" else "id")
    try:
        raise ValueError(text if where == "error" else "b")
    except ValueError:
        entry = record(text if where == "message" else "m", {"path": text} if where == "field" else {}, sys.exc_info())
    line = formatter.format(entry)
    request_id.reset(token)

    _, *others = line.split("\n")
    assert all(c.isprintable() for c in line.replace("\n", ""))
    assert all(other.startswith("    ") for other in others)
    assert others == [] or isinstance(formatter, TextFormatter)
    line.encode()


def test_a_value_cannot_look_like_another_field():
    line = TextFormatter().format(record("request", {"path": '/ status=200 "x"', "status": 404}))

    assert line.endswith(r'request path="/ status=200 \"x\"" status=404')


def test_json_keeps_what_was_sent():
    assert json.loads(JsonFormatter().format(record("request", {"path": "/\x1b\n"})))["path"] == "/\x1b\n"


@pytest.mark.parametrize("sent", ["/" + "a" * 60_000, "/" + "%ff" * 20_000])
def test_the_log_of_a_request_is_short_however_long_its_path(server, caplog, sent):
    with caplog.at_level(logging.INFO, "xclip_runtime"):
        assert server.client.get(sent).status_code == 404
        eventually(lambda: caplog.records)

    assert len(JsonFormatter().format(caplog.records[-1])) < 5000
