"""Pages of other sites cannot use the server through the browser of a visitor."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from helpers.servers import running
from xclip_runtime.cli.serve import command
from xclip_runtime.demo import DEMO_VIDEO

VIDEO = DEMO_VIDEO.read_bytes()
PATHS = ["/", "/docs", "/openapi.json", "/v1/info", "/v1/search?text=cat", "/v2", "/metrics", "/v2/health/live"]


@pytest.fixture(scope="module")
def open_to(model):
    """A server with names and a friend of its own."""
    with running(
        model, allowed_hosts=("video.example", "*.inner.example"), cors_origins=("https://app.example",)
    ) as it:
        yield it


def opens(server, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    address = server.address.replace("http", "ws") + "/v1/live"
    try:
        with connect(address, open_timeout=60, additional_headers=headers) as opened:
            opened.send("{}")
            first = json.loads(opened.recv(60))
    except InvalidStatus:
        return False
    return first == {"type": "ready"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_name_that_another_site_has_pointed_to_the_server_reads_nothing(server, path, host):
    reply = server.client.get(path, headers={"Host": host})

    assert reply.status_code == 403
    assert "--allowed-hosts" in reply.text
    assert "application/json" in reply.headers["content-type"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    "used_as",
    [
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
        {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"},
        {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": "https://evil.example"},
        {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_a_page_of_another_site_embeds_nothing_and_may_only_link(server, site, used_as):
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    for path in PATHS:
        assert server.client.get(path, headers={"Sec-Fetch-Site": site, **used_as}).status_code == 403
    assert server.client.get("/", headers={"Sec-Fetch-Site": site, **link}).status_code == 200
    assert server.client.get("/v1/info", headers={"Sec-Fetch-Site": "same-origin", **used_as}).status_code == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/live", {"Origin": "https://evil.example"}, 403), ("/v1/classify", {}, 404), ("/nothing", {}, 404)],
)
def test_a_websocket_is_refused_as_any_request_is(server, path, headers, status):
    with pytest.raises(InvalidStatus) as refused:
        connect(server.address.replace("http", "ws") + path, open_timeout=60, additional_headers=headers)

    response = refused.value.response
    assert response.status_code == status
    assert json.loads(response.body)["error"]["request_id"] == response.headers["X-Request-ID"]


def test_a_post_that_asks_for_a_websocket_is_a_post(server):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}

    reply = server.client.post("/v1/live", headers=headers)
    assert reply.status_code == 404
    assert reply.json()["error"]["request_id"]


def test_such_a_name_posts_nothing_and_opens_no_connection(server):
    headers = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}

    assert server.client.post("/v1/classify", content=VIDEO, headers=headers).status_code == 403
    assert not server.engine.live


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "x.localhost", "10.1.2.3:80", "[::1]:8000", "[::1]", "xclip", "xclip:8000"]
)
def test_addresses_and_local_names_are_the_servers(server, host):
    assert server.client.get("/v1/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("video.example", 200),
        ("VIDEO.example.:443", 200),
        ("a.inner.example", 200),
        ("inner.example", 403),
        ("notvideo.example", 403),
        ("evil.example", 403),
    ],
)
def test_a_server_has_the_names_that_it_is_given(open_to, host, status):
    assert open_to.client.get("/v1/info", headers={"Host": host}).status_code == status


def test_a_star_is_any_name(model):
    with running(model, allowed_hosts=("*",)) as server:
        assert server.client.get("/v1/info", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/embed", "/v2/models/xclip/infer"])
def test_forms_of_other_sites_are_refused_and_do_no_work(server, path, headers):
    reply = server.client.post(path, files={"video": VIDEO}, headers=headers)

    assert reply.status_code == 403
    assert "--cors-origin" in reply.text


@pytest.mark.parametrize("own", ["by its address", "behind a proxy", "no browser"])
def test_the_servers_own_page_and_programs_are_served(server, own):
    headers = {
        "by its address": {"Origin": server.address},
        "behind a proxy": {"Origin": "https://video.example", "Sec-Fetch-Site": "same-origin"},
        "no browser": {},
    }[own]

    assert server.client.post("/v1/embed", content=VIDEO, headers=headers).status_code == 200


def test_links_from_other_sites_lead_to_the_page(server):
    assert server.client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_only_the_servers_own_page_opens_a_connection(server):
    assert opens(server, Origin=server.address)
    assert not opens(server, Origin="http://evil.example")
    assert not opens(server, Origin="null")
    assert not opens(server, Sec_Fetch_Site="cross-site")


def test_an_origin_that_is_named_may_read_answers(open_to):
    friend = {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"}
    asked = {**friend, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    before = open_to.client.options("/v1/classify", headers=asked)
    reply = open_to.client.post("/v1/classify", content=VIDEO, headers=friend)
    refused = open_to.client.post("/v1/classify", content=b"", headers=friend)

    assert before.status_code == reply.status_code == 200
    assert refused.status_code == 422
    assert {r.headers["access-control-allow-origin"] for r in (before, reply, refused)} == {"https://app.example"}
    assert opens(open_to, Origin="https://app.example")


def test_other_origins_may_not(open_to, server):
    stranger = {"Origin": "https://other.example"}

    assert open_to.client.post("/v1/classify", content=VIDEO, headers=stranger).status_code == 403
    assert "access-control-allow-origin" not in open_to.client.get("/v1/info", headers=stranger).headers
    assert "access-control-allow-origin" not in server.client.get("/v1/info", headers=stranger).headers


def test_a_star_is_any_origin(model):
    with running(model, cors_origins=("*",)) as server:
        reply = server.client.post("/v1/embed", content=VIDEO, headers={"Origin": "https://any.example"})

    assert reply.headers["access-control-allow-origin"] == "*"


def test_the_command_takes_names_one_by_one_and_in_a_list(monkeypatch):
    seen = []
    monkeypatch.setattr("xclip_runtime.serve.server.run_as_process", lambda server: seen.append(server.engine.settings))
    names = ["--allowed-hosts", "a.example, b.example", "--allowed-hosts", "c.example"]
    options = ["--host", "127.0.0.1", "--port", "0", *names, "--cors-origin", "https://d.example/"]
    result = CliRunner().invoke(command, ["-b", "motion-demo", *options], catch_exceptions=False)

    assert result.exit_code == 0, result.output
    assert seen[0].allowed_hosts == ("127.0.0.1", "a.example", "b.example", "c.example")
    assert seen[0].cors_origins == ("https://d.example/",)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--allowed-hosts", "http://a.example"), ("--allowed-hosts", "a.example:80"), ("--allowed-hosts", "a.*.example")]
    + [("--cors-origin", value) for value in ("a.example", "ftp://a.example", "https://a.example/page", "https://*")],
)
def test_names_that_can_never_match_are_refused(option, value):
    done = CliRunner().invoke(command, ["--bundle", "motion-demo", option, value])

    assert done.exit_code == 2
    assert "is not right: give" in done.output
