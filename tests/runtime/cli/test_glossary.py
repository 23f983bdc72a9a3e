"""One glossary for options: the same meaning has the same spelling, flag, unit and default in every command."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict

import click
import pytest

from helpers.markdown import ROOT
from xclip_export import export_bundle
from xclip_runtime import (
    Backoff,
    EventDetector,
    Limits,
    Reading,
    Reuse,
    ServeSettings,
    VideoIndex,
    XClip,
    open_source,
    pack_bundle,
)
from xclip_runtime.bench.plan import Conditions, Plan
from xclip_runtime.bundle.model_card import Push
from xclip_runtime.cli import cli
from xclip_runtime.cli.parameters import Option, PositionalAlias
from xclip_runtime.evaluation.datasets import find_samples
from xclip_runtime.evaluation.streams import ComparedStream
from xclip_runtime.integrations.triton_repository import export_repository
from xclip_runtime.serve.server import Server
from xclip_runtime.tuning.run import tune

SHORT = {"--bundle": "-b", "--output": "-o", "--top-k": "-k", "--index": "-i", "--help": "-h"}

UNITS = {"SECONDS": "seconds", "MS": "milliseconds", "MIB": "MiB"}

HELP_VARIES = {
    *(
        "--output",
        "--video",
        "--top-k",
        "--window",
        "--index",
        "--bundle",
    ),  # the object differs: labels or hits, a file or a folder
    *(
        "--device",
        "--profile",
        "--precision",
        "--labels-file",
        "--template",
    ),  # export writes what the others choose from
}
DEFAULT_VARIES = {
    *("--bundle", "--index", "--output"),  # required or optional
    "--video",  # tune has clips of its own
    *("--top-k", "--window", "--device", "--profile", "--precision", "--labels-file", "--template"),
    *("--batch-size", "--batch-delay", "--time-limit"),  # a server answers sooner than a run over files
}

OLD_SPELLINGS = {
    ("classify", "--out"): "--output",
    ("classify", "--batch"): "--batch-size",
    ("embed", "--out"): "--output",
    ("eval", "--out"): "--output",
    ("eval", "--splits"): "--split-files",
    ("bench", "--report"): "--output",
    ("bench", "--batch"): "--batch-size",
    ("serve", "--deadline"): "--request-timeout",
    ("serve", "--decode-limit"): "--time-limit",
    ("stream", "--give-up"): "--reconnect-timeout",
    ("export", "--labels"): "--labels-file",
    ("export-triton", "--batch"): "--batch-size",
}
OWN_OPTIONS = {"train.py", "retrieval.py"}
"""Scripts whose own options have the spelling --out."""
RENAMED = {"--delay-us", *(old for _, old in OLD_SPELLINGS)} - {"--labels"}  # a list of labels, other than in export

PYTHON = {
    "classify": (XClip, XClip.classify_each, XClip.with_labels, Reading),
    "embed": (XClip, XClip.features_each, Reading),
    "score": (XClip, XClip.score, Reading),
    "stream": (XClip, XClip.stream, XClip.with_labels, open_source, Backoff, EventDetector, Reuse),
    "eval-stream": (XClip, XClip.stream, XClip.with_labels, Reuse, ComparedStream),
    "index add": (XClip, VideoIndex.create, VideoIndex.add, Reuse),
    "index search": (XClip, VideoIndex.open, VideoIndex.search),
    "eval": (XClip, find_samples, XClip.classify_each, XClip.with_labels, Reading),
    "bench": (XClip, Plan, Conditions),
    "tune": (tune,),
    "export": (export_bundle,),
    "export-triton": (export_repository,),
    "pack": (pack_bundle,),
    "push": (Push.prepare, Push.send),
    "serve": (XClip, ServeSettings, Limits, Server),
}
"""Functions and dataclasses that the options of a command fill."""

COMMAND_ONLY = {
    *("json", "output", "resume", "events", "contact-sheet", "dry-run", "with-features"),  # what is printed or written
    *("no-text", "no-stream", "no-sweeps", "labels-file"),  # text=False, …; a file that is read to labels
    *("limit", "max-windows", "compare-precision", "swap-check"),
    *("tls-cert", "tls-key", "log-format", "log-level"),
    *("for", "index"),  # a keyword of Python; a folder
}

REQUIRED = {
    "classify": ["v.mp4", "-b", "motion-demo"],
    "embed": ["v.mp4", "-b", "motion-demo", "-o", "x"],
    "eval": ["data", "-b", "motion-demo"],
    "bench": [],
    "serve": ["-b", "motion-demo"],
    "stream": ["v.mp4", "-b", "motion-demo"],
    "export": ["checkpoint", "-o", "x"],
    "export-triton": ["-b", "motion-demo", "-o", "x"],
    "info": ["-b", "motion-demo"],
    "verify": ["-b", "motion-demo"],
}


def walk(group, prefix=""):
    """All commands with their names, those inside groups and the groups themselves."""
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from walk(command, f"{prefix}{name} ")


COMMANDS = dict(walk(cli))
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option) and not option.hidden
]


def spelling(option):
    return next(opt for opt in option.opts if opt.startswith("--"))


def by_spelling():
    grouped = defaultdict(list)
    for name, option in OPTIONS:
        grouped[spelling(option)].append((name, option))
    return grouped.items()


def context(name, arguments):
    return COMMANDS[name].make_context(name, list(arguments))


def help_of(name):
    command = COMMANDS[name]
    return command.get_help(click.Context(command, info_name=name, show_default=True, terminal_width=100))


def test_all_commands_are_walked():
    assert {"classify", "index search", "labels encode", "bench compare", "export-triton"} <= set(COMMANDS)
    assert len(OPTIONS) > 100


def test_every_option_accepts_old_spellings_and_names_itself_when_it_is_missing():
    assert all(isinstance(option, Option) for _, option in OPTIONS)


def test_a_meaning_has_one_spelling():
    spellings = defaultdict(set)
    for _, option in OPTIONS:
        spellings[option.name].add(tuple(sorted(option.opts + option.secondary_opts)))

    assert {meaning: found for meaning, found in spellings.items() if len(found) > 1} == {}


def test_a_spelling_has_one_meaning_unit_and_type():
    for name, group in by_spelling():
        assert len({option.name.removesuffix("s") for _, option in group}) == 1, name  # precision, precisions
        assert len({option.metavar for _, option in group}) == 1 or name in ("--output", "--bundle"), name
        assert len({type(option.type) for _, option in group}) == 1 or name == "--bundle", name
        assert len({option.envvar for _, option in group}) == 1 or name == "--index", name


@pytest.mark.parametrize("command", PYTHON)
def test_an_option_has_the_name_of_the_parameter_or_field_that_it_fills(command):
    fields = {name for function in PYTHON[command] for name in inspect.signature(function).parameters}
    words = {word for name in fields for word in (name, name.removesuffix("s"), f"max_{name}")}
    options = {spelling(option)[2:] for name, option in OPTIONS if name == command}

    assert {name for name in options - COMMAND_ONLY if name.replace("-", "_") not in words} == set()


def test_short_flags_are_those_of_the_glossary():
    for _, option in OPTIONS:
        short = [opt for opt in option.opts if not opt.startswith("--")]
        assert short == [flag for flag in [SHORT.get(spelling(option))] if flag]


def test_a_spelling_has_one_help_text_and_one_default():
    for name, group in by_spelling():
        if name not in HELP_VARIES:
            assert len({option.help for _, option in group}) == 1, name
        if name not in DEFAULT_VARIES:
            assert len({(str(option.default), option.show_default) for _, option in group}) == 1, name


def test_every_help_text_is_a_sentence_that_leaves_the_default_to_the_brackets():
    for name, option in OPTIONS:
        assert option.help.endswith("."), (name, option.opts)
        assert not re.search(r"\bdefault\b:", option.help, re.IGNORECASE), (name, option.opts)


def test_every_value_has_a_metavar_or_choices_and_units_are_said():
    for name, option in OPTIONS:
        if not option.is_flag:
            assert option.metavar or isinstance(option.type, click.Choice), (name, option.opts)
            assert UNITS.get(option.metavar, "") in option.help, (name, option.opts)


def test_no_option_is_shown_by_an_old_name():
    assert {spelling(option) for _, option in OPTIONS} & RENAMED == set()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_help_shows_an_old_name(name):
    words = set(re.findall(r"(?<![\w-])--[a-z-]+", help_of(name)))

    assert words & RENAMED == set()
    assert not (name == "export" and "--labels" in words)
    assert words <= {"--help", "--no-live", "--no-fused", *(spelling(option) for _, option in OPTIONS)}


@pytest.mark.parametrize(("name", "old"), sorted(OLD_SPELLINGS))
def test_an_old_spelling_is_still_accepted(name, old):
    new = OLD_SPELLINGS[name, old]

    others = [word for word in REQUIRED[name] if new != "--output" or word not in ("-o", "x")]

    renamed, given = (context(name, [*others, flag, "7"]).params for flag in (old, new))

    assert renamed == given
    assert 7 in given.values() or "7" in given.values()


@pytest.mark.parametrize(("name", "old"), sorted(OLD_SPELLINGS))
def test_an_old_spelling_beside_the_new_one_is_refused(name, old):
    new = OLD_SPELLINGS[name, old]

    with pytest.raises(click.UsageError, match=f"{old} is the old name of {new}: give {new} alone"):
        context(name, [*REQUIRED[name], old, "7", new, "7"])


def test_every_old_spelling_is_in_this_table():
    assert {(name, alias) for name, option in OPTIONS for alias in option.aliases} == set(OLD_SPELLINGS)


def test_the_delay_in_microseconds_is_still_accepted():
    assert context("export-triton", [*REQUIRED["export-triton"], "--delay-us", "500"]).params["delay_us"] == 500


def test_the_delay_in_microseconds_is_refused_beside_the_one_in_milliseconds(run):
    done = run("export-triton", *REQUIRED["export-triton"], "--delay-us", "500", "--batch-delay", "1")

    assert (done.code, done.out) == (2, "")
    assert "--delay-us is the old form of --batch-delay: give --batch-delay alone" in done.err


def uses():
    """Lines of sources, scripts and images that may name an option, as (place, line)."""
    for folder, pattern in (
        *((folder, "**/*.py") for folder in ("runtime", "export", "benchmarks", "examples")),
        *((folder, "**/*") for folder in ("docker", ".github", ".ci")),
    ):
        for file in sorted((ROOT / folder).glob(pattern)):
            if file.is_file() and file.name not in OWN_OPTIONS:
                for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1):
                    if not re.search("aliases=|hidden=True|is the old form of", line):
                        yield f"{file.relative_to(ROOT)}:{number}", line


def test_no_source_script_or_image_uses_an_old_spelling():
    found = list(uses())
    old = re.compile(
        rf"(?<![\w-])({'|'.join(sorted(RENAMED))})(?![\w-])"
        r"|xclip-onnx (info|verify|export-triton) (?!-)[\w/.]+"
        r"|\bexport\b.*--labels(?![\w-])|--labels (FILE|\{)"
    )

    assert {place.partition("/")[0] for place, _ in found} >= {"runtime", "export", "benchmarks", "docker", "examples"}
    assert [place for place, line in found if old.search(line)] == []


@pytest.mark.parametrize(
    ("name", "positional"), [("info", ["bundle"]), ("verify", ["bundle"]), ("export-triton", ["bundle", "models"])]
)
def test_the_old_positional_spellings_are_hidden_accepted_and_refused_beside_the_option(name, positional):
    params = context(name, positional).params
    aliases = [param for param in COMMANDS[name].params if isinstance(param, PositionalAlias)]

    assert [params[alias.option] for alias in aliases] == positional
    assert f"Usage: {name} [OPTIONS]\n" in help_of(name)
    with pytest.raises(click.UsageError, match="--bundle is given already"):
        context(name, [*REQUIRED[name], *positional])


def test_the_name_of_the_embedded_bundle_is_a_bundle_everywhere(monkeypatch):
    monkeypatch.delenv("XCLIP_ONNX_BUNDLE", raising=False)
    takers = {name for name, option in OPTIONS if spelling(option) == "--bundle"}

    assert {*REQUIRED} - {"export"} <= takers
    for name in sorted({*REQUIRED} & takers):
        params = context(name, REQUIRED[name]).params
        assert params["bundles"] == {"xclip": "motion-demo"} if name == "serve" else params["bundle"] == "motion-demo"


@pytest.mark.parametrize("name", sorted({*REQUIRED} - {"export", "bench", "export-triton"}))
def test_a_missing_bundle_is_one_line_with_the_fix(run, name):
    arguments = [word for word in REQUIRED[name] if word not in ("-b", "motion-demo")]

    done = run(name, *arguments)

    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "BUNDLE is missing: give a bundle folder, or motion-demo for the embedded one" in done.err


def test_an_old_spelling_is_never_suggested(run):
    done = run("classify", "v.mp4", "-b", "motion-demo", "--outp", "x")

    assert done.code == 2
    assert "'--output'" in done.err
    assert "'--out'" not in done.err


def test_the_summary_of_every_command_fits_its_list(run):
    for group in ((), ("index",), ("labels",), ("bench",)):
        listed = run(*group, "--help").out.partition("Commands:")[2]
        assert listed
        assert "..." not in listed
