"""Bundles come from a model hub, file by file, and every refusal is one line that says what to do."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import requests

from helpers.bundles import copy_bundle, edit_manifest, flip_byte, reseal
from helpers.hub_server import TOKEN
from xclip_runtime import Bundle, XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import (
    BundleCorruptError,
    BundleNotFoundError,
    HubAccessError,
    HubError,
    HubNotFoundError,
    HubUnavailableError,
    MissingExtraError,
)
from xclip_runtime.hub.repository import LARGEST_FIRST, parse_name
from xclip_runtime.text.encoder import TextEncoder

VISION = "onnx/vision_model.onnx"
LOADED = [
    "manifest.json",
    "labels.json",
    "preprocessor_config.json",
    VISION,
    "onnx/prompt_model.onnx",
    "text_embeds.npy",
]
FOR_TEXT = ["config.json", "tokenizer.json", "onnx/text_model.onnx"]


@pytest.fixture
def demo(hub):
    """The hub, with motion-demo as owner/demo."""
    hub.commit = hub.add("owner/demo", {"README.md": b"# card", **files_of(DEMO_BUNDLE)})
    return hub


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(kind, name="owner/demo"):
    """The message of the error that opening a bundle raises: one line with what to do."""
    with pytest.raises(kind) as caught:
        XClip(name, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message
    return message


def test_a_model_loads_with_the_files_that_it_needs_and_answers_as_the_folder_does(demo):
    model = XClip.from_pretrained("owner/demo", device="cpu")

    assert demo.downloads() == LOADED
    assert model.classify(DEMO_VIDEO).top.label == XClip(DEMO_BUNDLE, device="cpu").classify(DEMO_VIDEO).top.label


def test_the_precision_decides_which_graph_is_downloaded(demo):
    XClip("owner/demo", device="cpu", precision="int8")

    assert [name for name in demo.downloads() if "vision" in name] == ["onnx/vision_model_int8.onnx"]


def test_weights_beside_a_graph_are_downloaded_with_it_and_found_behind_the_links_of_the_cache(hub, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    graph = onnx.load(bundle / VISION)
    (bundle / VISION).unlink()
    onnx.save(graph, bundle / VISION, save_as_external_data=True, location="vision_model.onnx.data")
    manifest = Bundle.open(bundle, check_sizes=False).manifest
    entry = {**manifest["graphs"]["vision_model"], "data_files": [f"{VISION}.data"]}
    files = {**manifest["files"], f"{VISION}.data": {}}
    edit_manifest(bundle, files=files, graphs={**manifest["graphs"], "vision_model": entry})
    reseal(bundle)
    hub.add("owner/large", bundle)

    XClip("owner/large", device="cpu")

    assert f"{VISION}.data" in hub.downloads()


def test_the_text_tower_is_downloaded_once_it_is_needed(demo):
    model = XClip("owner/demo", device="cpu")
    model.with_labels(["a cat"])

    assert demo.downloads() == [*LOADED, *FOR_TEXT]


def test_the_text_tower_can_be_downloaded_ahead_of_the_first_text(demo):
    TextEncoder(Bundle.open("owner/demo")).check_files()

    assert demo.downloads() == ["manifest.json", *FOR_TEXT]


def test_nothing_is_downloaded_twice(demo):
    XClip("owner/demo", device="cpu")
    demo.requests.clear()
    XClip("owner/demo", device="cpu")

    assert demo.requests == [("HEAD", "/owner/demo/resolve/main/manifest.json")]


@pytest.mark.parametrize(
    "spelling",
    [
        *("owner/demo@v1", "{hub}/owner/demo/tree/v1", "https://huggingface.co/owner/demo/tree/v1"),
        *("https://huggingface.co/owner/demo/blob/v1/manifest.json", "hf.co/owner/demo/resolve/v1/manifest.json"),
    ],
)
def test_a_revision_is_part_of_the_name_or_of_the_pasted_address(demo, tmp_path, spelling):
    other = copy_bundle(tmp_path / "other")
    edit_manifest(other, tools={"xclip-onnx": "of another revision"})
    demo.add("owner/demo", files_of(other), revision="v1")

    assert Bundle.open(spelling.format(hub=demo.url)).manifest["tools"] == {"xclip-onnx": "of another revision"}
    assert Bundle.open("https://huggingface.co/owner/demo").manifest == Bundle.open(DEMO_BUNDLE).manifest


@pytest.mark.parametrize(
    ("page", "revision"),
    [
        *(("tree/refs/pr/1", "refs/pr/1"), ("tree/refs%2Fpr%2F1", "refs/pr/1"), ("tree/main/onnx", "main")),
        *(("blob/main/onnx/head_model.onnx", "main"), ("resolve/v1/manifest.json", "v1"), ("tree/v1/", "v1")),
    ],
)
def test_the_revision_of_an_address_may_have_slashes(page, revision):
    assert parse_name(f"https://huggingface.co/owner/demo/{page}") == ("owner/demo", revision)


@pytest.mark.parametrize("page", ["tree/a/b", "blob/a/b/manifest.json"])
def test_an_address_that_may_mean_several_revisions_is_refused(demo, page):
    assert "write owner/demo@REVISION" in refused(HubError, f"https://huggingface.co/owner/demo/{page}")
    assert demo.requests == []


def test_a_manifest_of_unlikely_size_is_refused_before_it_is_downloaded(demo):
    demo.add("owner/demo", {"manifest.json": bytes(LARGEST_FIRST + 1)})

    assert "manifest.json of owner/demo has 17 MB" in refused(HubError)
    assert demo.downloads() == []


@pytest.mark.parametrize("revision", ["v1", "refs/pr/1", None])
def test_from_pretrained_takes_a_revision(demo, revision):
    commit = demo.add("owner/demo", files_of(DEMO_BUNDLE), revision=revision or "main")

    assert XClip.from_pretrained("owner/demo", revision=revision, device="cpu").bundle.path.name == commit
    assert XClip.from_pretrained("owner/demo", revision=commit, device="cpu").bundle.path.name == commit


def test_from_pretrained_takes_a_folder_but_no_revision_of_it(demo):
    assert XClip.from_pretrained(DEMO_BUNDLE, device="cpu").bundle.repository is None
    with pytest.raises(HubError, match="leave the revision out"):
        XClip.from_pretrained(DEMO_BUNDLE, revision="v1")


def test_a_folder_of_that_name_comes_first(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy_bundle(tmp_path / "owner" / "demo")

    assert Bundle.open("owner/demo").path == Path("owner/demo")
    assert demo.requests == []


@pytest.mark.parametrize("name", ["nowhere", "./owner/demo", "/owner/demo", "a/b/c", "~/demo", "owner/demo "])
def test_a_path_is_never_looked_up_on_the_hub(demo, name):
    with pytest.raises(BundleNotFoundError, match="no bundle at"):
        Bundle.open(name)
    assert demo.requests == []


@pytest.mark.parametrize(
    "address",
    [
        *(
            "https://example.org/owner/demo",
            "https://huggingface.co/datasets/owner/demo",
            "https://huggingface.co/owner",
        ),
        *("https://huggingface.co/owner/demo/discussions", "https://name:secret@example.org/owner/demo"),
        *("http://[::1", "http://name:secret@[::1/owner/demo"),
    ],
)
def test_an_address_that_is_no_model_is_told_how_to_write_one(demo, address):
    message = refused(HubError, address)

    assert "write owner/name" in message
    assert "secret" not in message


def test_a_repository_without_the_extra_names_it(demo, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    assert "pip install 'xclip-onnx[hub]'" in refused(MissingExtraError)


def test_an_unknown_repository_may_be_private_or_misspelt(demo):
    message = refused(HubNotFoundError, "owner/other")

    assert "no folder owner/other here" in message
    assert "check the name; for a private one set HF_TOKEN" in message


def test_a_private_repository_opens_with_a_token(demo, monkeypatch):
    demo.add("owner/private", files_of(DEMO_BUNDLE), private=True)
    assert "set HF_TOKEN" in refused(HubNotFoundError, "owner/private")

    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert "(401): set HF_TOKEN" in refused(HubAccessError, "owner/private")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert Bundle.open("owner/private").labels.names


def test_a_gated_repository_says_where_to_ask(demo):
    demo.add("owner/gated", files_of(DEMO_BUNDLE), gated=True)

    message = refused(HubAccessError, "owner/gated")

    assert f"ask for access at {demo.url}/owner/gated" in message
    assert "hf auth login" in message


@pytest.mark.parametrize("revision", ["v9", "0123456789012345678901234567890123456789"])
def test_an_unknown_revision_is_named(demo, revision):
    assert f"owner/demo has no revision {revision}" in refused(HubNotFoundError, f"owner/demo@{revision}")


def test_a_checkpoint_is_told_how_to_become_a_bundle(hub):
    hub.add("owner/checkpoint", {"config.json": b"{}"})

    assert "xclip-onnx export owner/checkpoint" in refused(HubNotFoundError, "owner/checkpoint")


def test_a_file_that_the_repository_lacks_is_named(demo):
    files = files_of(DEMO_BUNDLE)
    del files[VISION]
    demo.add("owner/lacking", files)

    assert f"owner/lacking has no {VISION} at" in refused(HubNotFoundError, "owner/lacking")


@pytest.mark.parametrize(("status", "trouble"), [(429, "too many requests"), (500, "down"), (503, "overloaded")])
def test_a_hub_that_is_overloaded_is_asked_again_and_then_named(demo, caplog, status, trouble):
    demo.statuses["owner/demo"] = [status]
    assert Bundle.open("owner/demo").labels.names
    assert len(caplog.records) == 1

    demo.statuses["owner/other"] = [status] * 50
    message = refused(HubUnavailableError, "owner/other")
    assert trouble in message
    assert f"({status}): try again" in message


def test_a_hub_that_cannot_be_reached_says_what_to_check(demo, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    assert "cannot reach 127.0.0.1:9" in refused(HubUnavailableError)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8080",
        "nonsense",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host:99999",
        "ht://name:secret@host",
    ],
)
def test_an_endpoint_that_is_no_address_is_named(demo, monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)

    message = refused(HubError)

    assert "HF_ENDPOINT is not the address of a hub" in message
    assert "secret" not in message


@pytest.mark.parametrize("status", [400, 410, 418])
def test_a_status_without_a_meaning_of_its_own_is_told(demo, status):
    demo.statuses["owner/demo"] = [status] * 9

    assert f"refuses the download of manifest.json of owner/demo ({status})" in refused(HubError)


@pytest.mark.parametrize("kind", [RecursionError, requests.TooManyRedirects])
def test_redirects_without_an_end_are_not_those_of_a_hub(demo, monkeypatch, kind):
    def fail(*args, **options):
        raise kind

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)

    assert "does not answer as a model hub" in refused(HubError)


def test_a_token_that_no_header_can_hold_is_named(demo, monkeypatch):
    def fail(*args, **options):
        "Bearer t\u00f6ken".encode("ascii")

    # Some versions of the client send it as Latin-1.
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    monkeypatch.setenv("HF_TOKEN", "t\u00f6ken")

    assert refused(HubError) == "HF_TOKEN has characters that no token has: copy it again"


def test_settings_that_the_client_cannot_read_are_named(demo):
    code = (
        "from xclip_runtime import Bundle, XClipError\ntry: Bundle.open('owner/demo')\nexcept XClipError as e: print(e)"
    )
    environment = {**os.environ, "HF_HUB_ETAG_TIMEOUT": "soon"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)

    assert "check the variables HF_*" in done.stdout


def test_a_log_that_the_client_opens_late_is_put_aside_as_well(demo):
    code = (
        "import importlib, logging; from xclip_runtime.hub.client import Use, attempt\n"
        "def call(client):\n"
        "    importlib.import_module('huggingface_hub.utils.logging')  # recent versions import it when it is used\n"
        "    assert len(logging.getLogger('huggingface_hub').handlers) == 1\n"
        "    logging.getLogger('huggingface_hub.x').warning('secret')\n"
        "attempt(Use('owner/demo', None), call)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr == ""


def test_a_server_that_is_no_hub_is_told_from_one(demo, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{demo.url}/some/page")

    assert "does not answer as a model hub: check HF_ENDPOINT" in refused(HubError)


def test_what_is_in_the_cache_loads_without_the_hub(demo, monkeypatch):
    XClip("owner/demo", device="cpu")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    model = XClip("owner/demo", device="cpu")
    assert "cannot reach" in refused_text(model)


def refused_text(model):
    with pytest.raises(HubUnavailableError) as caught:
        model.with_labels(["a cat"])
    return str(caught.value)


def test_a_download_that_is_cut_is_resumed_with_a_line_for_each(demo, caplog):
    demo.cuts[VISION] = [100_000, 50_000]

    with caplog.at_level(logging.WARNING):
        XClip("owner/demo", device="cpu")

    assert demo.ranges == ["bytes=100000-", "bytes=150000-"]
    assert [record.name.partition(".")[0] for record in caplog.records] == ["xclip_runtime"] * 2
    assert all(VISION in line and "\n" not in line for line in caplog.messages)


def test_a_download_that_is_always_cut_ends_and_is_resumed_by_the_next_run(demo):
    demo.cuts[VISION] = [20_000] * 50
    assert "run it again to resume" in refused(HubUnavailableError)

    demo.cuts.clear()
    XClip("owner/demo", device="cpu")
    assert demo.ranges


def test_content_that_the_manifest_does_not_name_is_downloaded_again_and_refused(demo):
    demo.lies[VISION] = bytes(len((DEMO_BUNDLE / VISION).read_bytes()))

    assert "SHA-256 differs" in refused(BundleCorruptError)


def test_a_damaged_file_in_the_cache_is_replaced(demo):
    bundle = Bundle.open("owner/demo")
    flip_byte(bundle.checked(VISION).resolve())

    assert bundle.checked(VISION).read_bytes() == (DEMO_BUNDLE / VISION).read_bytes()


def test_a_link_in_the_cache_to_something_else_is_replaced(demo, tmp_path):
    bundle = Bundle.open("owner/demo")
    (tmp_path / "other").write_text("something else")
    path = bundle.checked("labels.json")
    for target in (tmp_path / "other", tmp_path / "nowhere", path):
        path.unlink()
        path.symlink_to(target)
        assert bundle.checked("labels.json").read_bytes() == (DEMO_BUNDLE / "labels.json").read_bytes()
    assert (tmp_path / "other").read_text() == "something else"


def test_another_size_than_the_hub_names_is_refused(demo):
    demo.lies[VISION] = b"<html>sign in to this network</html>"

    assert "in another size than it names" in refused(HubError)


def test_a_cache_that_cannot_be_written_names_the_folder_and_hf_home(demo, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "cache"))

    message = refused(HubError)

    assert str(tmp_path / "file" / "cache") in message
    assert "HF_HOME" in message


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EIO, errno.ELOOP])
def test_a_disk_that_is_full_or_read_only_is_told_with_its_cause(demo, monkeypatch, code):
    def fail(*args, **options):
        raise OSError(code, "the cause", "/cache/file")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)

    assert "(the cause): free space, or set HF_HOME" in refused(HubError)


def test_without_a_home_the_cache_is_asked_for(demo, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "~/.cache/huggingface/hub")

    assert "no home folder" in refused(HubError)


def test_a_git_lfs_pointer_in_a_folder_is_named(tmp_path):
    folder = copy_bundle(tmp_path / "bundle")
    (folder / VISION).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6769908\n")

    with pytest.raises(BundleCorruptError, match=r"is a Git LFS pointer.*git lfs pull"):
        Bundle.open(folder)


def test_a_damaged_manifest_is_for_the_owner_of_the_repository(hub):
    for name, content in {"lfs": b"version https://git-lfs.github.com/spec/v1\n", "html": b"<html>"}.items():
        hub.add(f"owner/{name}", {"manifest.json": content})
        assert refused(BundleCorruptError, f"owner/{name}").endswith(f"ask the owner of owner/{name} to push it again")


def test_the_clients_own_log_is_as_before(demo):
    log = logging.getLogger("huggingface_hub")
    before = log.handlers, log.propagate
    Bundle.open("owner/demo")

    assert (log.handlers, log.propagate) == before
