"""Bundles of a model hub in commands, and `push`."""

from __future__ import annotations

import json
import os

import pytest

from helpers.bundles import copy_bundle, edit_manifest, flip_byte
from helpers.hub_server import TOKEN
from xclip_runtime import Bundle
from xclip_runtime.cli import main
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO


@pytest.fixture
def demo(hub):
    """The hub, with motion-demo as owner/demo."""
    hub.add("owner/demo", DEMO_BUNDLE)
    return hub


@pytest.fixture
def call(capsys):
    """Run a command in this process; return exit code, stdout and stderr."""

    def call_main(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["xclip-onnx", *map(str, args)])
            with pytest.raises(SystemExit) as caught:
                main()
        printed = capsys.readouterr()
        return caught.value.code or 0, printed.out, printed.err

    return call_main


def environment(hub, tmp_path, **more):
    cache = str(tmp_path / "hub-cache")
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": cache,
        "HF_HUB_DISABLE_XET": "1",
        "HOME": str(tmp_path),
        **more,
    }


def test_every_bundle_option_takes_a_repository(demo, call):
    code, out, _ = call("classify", DEMO_VIDEO, "--bundle", "owner/demo", "--device", "cpu", "--json")

    assert code == 0
    assert json.loads(out)["labels"]
    assert call("verify", "--bundle", "owner/demo")[0] == 0


def test_no_log_of_the_client_appears_and_json_is_alone_on_standard_output(demo, run, tmp_path):
    demo.cuts["onnx/vision_model.onnx"] = [1000]
    done = run(
        *("classify", DEMO_VIDEO, "--bundle", "owner/demo", "--device", "cpu", "--json"),
        env=environment(demo, tmp_path),
    )

    assert done.code == 0, done.err
    assert done.json["labels"]
    [line] = done.err.splitlines()
    assert line.startswith("xclip-onnx: the download of onnx/vision_model.onnx of owner/demo was cut")


def test_offline_mode_names_what_the_cache_lacks(demo, run, tmp_path):
    Bundle.open("owner/demo")
    done = run("info", "--bundle", "owner/demo", env=environment(demo, tmp_path, HF_HUB_OFFLINE="1"))

    assert done.code == 2
    message = "offline mode is on, and the cache lacks labels.json of owner/demo: go online (unset HF_HUB_OFFLINE)"
    assert message in done.err


@pytest.fixture
def licensed(tmp_path):
    """A bundle of a published checkpoint under a licence."""
    bundle = copy_bundle(tmp_path / "bundle")
    source = {**Bundle.open(bundle).manifest["source"], "checkpoint": "owner/checkpoint", "revision": "abc123"}
    edit_manifest(bundle, source={**source, "licence": 'mit"\n---\nevil: true'})
    return bundle


def test_a_pushed_bundle_can_be_used_from_the_hub_with_its_card(hub, call, licensed, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    code, out, err = call("push", licensed, "owner/new", "--private", "--json")

    assert code == 0, err
    pushed = json.loads(out)
    repository = hub.repositories["owner/new"]
    assert repository.private
    assert repository.branches["main"] == pushed["commit"]
    assert set(repository.files) == {".gitattributes", *pushed["files"]}
    assert {name: len(data) for name, data in repository.files.items() if name != ".gitattributes"} == pushed["files"]
    assert Bundle.open("owner/new").digest == Bundle.open(licensed).digest
    assert [problem for _, problem in Bundle.open("owner/new").problems() if problem] == []
    assert repository.files["README.md"].decode() == pushed["card"]


def test_a_branch_is_made_for_a_revision(hub, call, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    assert call("push", DEMO_BUNDLE, "owner/new", "--revision", "v1")[0] == 0
    assert call("push", DEMO_BUNDLE, "owner/new@v1")[0] == 0

    assert "manifest.json" not in hub.repositories["owner/new"].files
    assert Bundle.open("owner/new@v1").labels.names


def test_the_card_says_source_licence_parity_sizes_and_how_to_run(call, licensed):
    code, out, err = call("push", licensed, "owner/new", "--dry-run")
    parity = Bundle.open(licensed).graph("vision", "int8", prefer="cpu").parity

    assert (code, err) == (0, "")
    _, front, body = out.split("---\n", 2)
    assert 'base_model: "owner/checkpoint"' in front
    assert 'license: "mit\\"\\n---\\nevil: true"' in front
    assert "evil: true" not in front.splitlines()
    for part in (
        *("xclip-onnx classify video.mp4 --bundle owner/new", 'XClip.from_pretrained("owner/new")'),
        *("https://huggingface.co/owner/checkpoint", "abc123", "onnx/vision_model_int8.onnx", "int8", "6.8"),
        *(
            f"{parity['max_abs_logit']:.1e}",
            f"{parity['cosine']:.6f}",
            "32 frames of 224 x 224",
            "a red shape moving left",
        ),
    ):
        assert part in body


def test_a_dry_run_sends_nothing_and_lists_the_files(hub, call):
    code, out, _ = call("push", DEMO_BUNDLE, "owner/new", "--dry-run", "--json")

    assert code == 0
    assert json.loads(out)["commit"] is None
    assert "onnx/vision_model.onnx" in json.loads(out)["files"]
    assert hub.requests == []


def test_a_damaged_bundle_is_not_pushed(hub, call, tmp_path):
    bundle = copy_bundle(tmp_path / "bundle")
    flip_byte(bundle / "onnx/prompt_model.onnx")

    code, _, err = call("push", bundle, "owner/new")

    assert code == 2
    assert "onnx/prompt_model.onnx has changed" in err
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "name", "said"),
    [
        ("", "owner/new", "does not let you write to owner/new (401): set HF_TOKEN"),
        ("hf_expired", "owner/new", "does not let you write to owner/new (401): set HF_TOKEN"),
        (TOKEN, "foreign/new", "does not let you write to foreign/new (403): set HF_TOKEN"),
        (TOKEN, "new", "'new' is not the name of a repository: write owner/name"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_a_push_that_is_refused_says_why(call, monkeypatch, token, name, said):
    monkeypatch.setenv("HF_TOKEN", token)

    code, _, err = call("push", DEMO_BUNDLE, name)

    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
