"""deploy/kubernetes.yaml: valid, safe, and with settings and probes that fit a real server."""

from __future__ import annotations

import json

import grpc
import httpx
import pytest
import yaml
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from helpers.deploy import DEPLOY
from helpers.servers import PATIENCE, process
from xclip_runtime.serve.inference_protocol.rpc import MESSAGE_BYTES

DEPLOYMENT, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
ENV = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
GIB = 1 << 30


def gib(quantity):
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))


@pytest.mark.parametrize("document", [DEPLOYMENT, SERVICE], ids=lambda document: document["kind"])
def test_it_is_valid_by_the_schemas_of_kubernetes(document):
    schemas = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate, 110 MB of schemas")

    schemas.validate(document, schemas.latest_version(), strict=True)


def test_a_container_has_no_more_rights_than_it_needs():
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {POD['securityContext']['runAsUser']}\n" in (DEPLOY.parent / "docker/Dockerfile.cpu").read_text()
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (POD["automountServiceAccountToken"], POD["enableServiceLinks"]) == (False, False)


def test_keys_are_a_secret_that_is_mounted_where_the_server_reads_them():
    [volume] = [volume for volume in POD["volumes"] if "secret" in volume]
    [mount] = [mount for mount in CONTAINER["volumeMounts"] if mount["name"] == volume["name"]]

    assert ENV["XCLIP_ONNX_API_KEYS_FILE"] == f"{mount['mountPath']}/keys"


def test_memory_and_disk_suffice_for_what_the_settings_allow():
    queue, workers = int(ENV["XCLIP_ONNX_QUEUE"]), int(ENV["XCLIP_ONNX_DECODE_WORKERS"])
    decoding = workers * int(ENV["XCLIP_ONNX_DECODE_MEMORY"]) << 20
    uploads = 2 * queue * int(ENV["XCLIP_ONNX_MAX_UPLOAD"]) << 20
    [disk] = [gib(volume["emptyDir"]["sizeLimit"]) for volume in POD["volumes"] if "emptyDir" in volume]

    assert decoding + queue * MESSAGE_BYTES + GIB <= gib(CONTAINER["resources"]["limits"]["memory"]) * GIB
    assert uploads <= disk * GIB


def test_the_pod_ends_after_its_last_answer():
    assert POD["terminationGracePeriodSeconds"] > int(ENV["XCLIP_ONNX_DRAIN_DELAY"]) + 60 + 5


def test_ports_are_named_alike_everywhere():
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}

    assert ports == {
        "http": 8000,
        "grpc": int(ENV["XCLIP_ONNX_GRPC_PORT"]),
        "metrics": int(ENV["XCLIP_ONNX_METRICS_PORT"]),
    }
    assert {port["targetPort"] for port in SERVICE["spec"]["ports"]} == {"http", "grpc"}
    assert SERVICE["spec"]["selector"] == DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    annotations = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(ports["metrics"])


def test_a_server_with_these_variables_passes_the_probes(tmp_path):
    (tmp_path / "keys").write_text("ci:secret\n")
    own = {"XCLIP_ONNX_API_KEYS_FILE": str(tmp_path / "keys"), "XCLIP_ONNX_DRAIN_DELAY": "0"}
    free = {"XCLIP_ONNX_GRPC_PORT": "0", "XCLIP_ONNX_METRICS_PORT": "0"}
    with process(env={**ENV, **own, **free}) as (server, address):
        listening = next(json.loads(line) for line in server.seen if '"listening"' in line)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            if "grpc" in CONTAINER[probe]:
                service = CONTAINER[probe]["grpc"].get("service", "")
                with grpc.insecure_channel(listening["grpc"]) as channel:
                    answer = HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=PATIENCE)
                assert answer.status == HealthCheckResponse.SERVING
            else:
                assert httpx.get(address + CONTAINER[probe]["httpGet"]["path"]).status_code == 200
        assert httpx.get(f"{listening['metrics']}/metrics").status_code == 200
        hosts = ENV["XCLIP_ONNX_ALLOWED_HOSTS"].split()
        asked = [httpx.get(f"{address}/v2", headers={"Host": host, "X-API-Key": "secret"}) for host in hosts]

    assert [reply.status_code for reply in asked] == [200] * len(hosts)
    assert f"{SERVICE['metadata']['name']}.default.svc" in hosts
