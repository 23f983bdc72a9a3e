"""The rules of deploy/alerts.yml, by themselves and in a Prometheus that scrapes a server."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml

from helpers.deploy import DEPLOY, free_port, needs
from helpers.servers import eventually, finished, running

[GROUP] = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
RULES = {rule["alert"]: rule["expr"] for rule in GROUP["rules"]}


@needs("promtool")
def test_the_rules_are_valid_and_fire_when_they_should():
    for arguments in (
        ("check", "rules", DEPLOY / "alerts.yml"),
        ("check", "config", "--syntax-only", DEPLOY / "prometheus.yml"),
        ("test", "rules", Path(__file__).with_name("alerts_test.yml")),
    ):
        done = finished(["promtool", *map(str, arguments)])
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tested_with_and_without_its_cause():
    tests = yaml.safe_load(Path(__file__).with_name("alerts_test.yml").read_text())["tests"]
    expected = [(case["alertname"], bool(case["exp_alerts"])) for test in tests for case in test["alert_rule_test"]]

    assert set(expected) == {(name, fires) for name in RULES for fires in (True, False)}


def test_every_series_of_the_rules_is_there_from_the_start(model):
    with running(model) as server:
        series = re.findall(r"^(\w+)\{(.*)\} 0\.0$", server.client.get("/metrics").text, flags=re.MULTILINE)
    for expression in RULES.values():
        for name, label, values in re.findall(r'(xclip_\w+)\{(\w+)=~?"([^"]*)"\}', expression):
            for value in values.split("|"):
                assert any(found == name and re.search(rf'\b{label}="{value}"', labels) for found, labels in series), (
                    value
                )


@contextmanager
def prometheus(server, key, folder):
    """A Prometheus with the files of deploy/, which scrapes `server` often; a client for it."""
    port, config = free_port(), (DEPLOY / "prometheus.yml").read_text()
    for old, new in (
        ("/etc/prometheus/xclip-key", "xclip-key"),
        ("127.0.0.1:8000", server.address.removeprefix("http://")),
        ("15s", "200ms"),
    ):
        assert old in config
        config = config.replace(old, new)
    (folder / "prometheus.yml").write_text(config)
    (folder / "xclip-key").write_text(f"{key}\n")
    shutil.copy(DEPLOY / "alerts.yml", folder)
    options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}")
    process = subprocess.Popen(["prometheus", *options], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        process.terminate()
        process.wait()


@needs("prometheus")
def test_a_prometheus_with_a_key_sees_the_first_worker_that_dies(model, tmp_path):
    with running(model, api_keys=("secret",)) as server, prometheus(server, "secret", tmp_path) as client:

        def values(expression):
            try:
                reply = client.get("/api/v1/query", params={"query": expression})
            except httpx.TransportError:
                return []
            return [] if reply.status_code != 200 else [s["value"][1] for s in reply.json()["data"]["result"]]

        eventually(lambda: values('up{job="xclip"}') == ["1"])
        eventually(lambda: "0" in values("xclip_decode_worker_restarts_total"))
        assert values(RULES["XclipDown"]) == values(RULES["XclipDecodeWorkersDie"]) == []
        [worker] = server.engine.pool.pids
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: len(values(RULES["XclipDecodeWorkersDie"])) == 1)
