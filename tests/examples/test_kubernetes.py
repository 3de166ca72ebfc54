"""The Kubernetes manifests are what the API server's schemas, the image and our settings allow."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from afterword.producer import Settings
from afterword.producer.cli.main import cli
from tests.conftest import ROOT

MANIFESTS: list[dict[str, Any]] = [
    one
    for path in sorted((ROOT / "examples/kubernetes").glob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
]
WORKERS = [one for one in MANIFESTS if one["kind"] in {"Deployment", "StatefulSet"}]


def container(worker: dict[str, Any]) -> dict[str, Any]:
    (only,) = worker["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["metadata"]["name"])
def test_a_manifest_is_valid_and_has_no_unknown_field(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_there_is_a_manifest_of_each_kind_of_worker() -> None:
    assert [container(one)["args"][:2] for one in WORKERS] == [
        ["worker", "responses"],
        ["worker", "memories"],
    ]


@pytest.mark.parametrize("worker", WORKERS, ids=lambda one: one["metadata"]["name"])
def test_a_pod_asks_for_the_health_of_its_own_kind_and_may_drain(worker: dict[str, Any]) -> None:
    kind = container(worker)["args"][1]
    command = container(worker)["livenessProbe"]["exec"]["command"]
    assert command == ["afterword", "healthcheck", kind]
    assert command[1] in cli.commands
    pod = worker["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 2 * Settings.load({}).drain_s
    assert worker["spec"]["selector"]["matchLabels"].items() <= (
        worker["spec"]["template"]["metadata"]["labels"].items()
    )


@pytest.mark.parametrize("worker", WORKERS, ids=lambda one: one["metadata"]["name"])
def test_a_pod_can_write_where_it_keeps_what_it_saw_of_the_ledger(worker: dict[str, Any]) -> None:
    (config,) = (one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")
    mounts = {one["mountPath"]: one["name"] for one in container(worker)["volumeMounts"]}
    volume = mounts[config["AFTERWORD_STATE_DIR"]]
    own = {one["name"] for one in worker["spec"]["template"]["spec"]["volumes"]}
    claimed = {one["metadata"]["name"] for one in worker["spec"].get("volumeClaimTemplates", ())}
    assert volume in own | claimed


def test_what_memory_workers_saw_outlives_their_pods() -> None:
    """Those that start on an older ledger make the whole fleet ask mem0 before a turn is added."""
    (memories,) = (one for one in WORKERS if container(one)["args"][1] == "memories")
    (config,) = (one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")
    (claim,) = memories["spec"]["volumeClaimTemplates"]
    mounts = {one["name"]: one["mountPath"] for one in container(memories)["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == config["AFTERWORD_STATE_DIR"]
    security = memories["spec"]["template"]["spec"]["securityContext"]
    assert security["fsGroup"] == security["runAsUser"]


def test_the_settings_are_accepted_together() -> None:
    (config,) = (one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")
    secret = {"AFTERWORD_REDIS_URL": "redis://h/0", "ANTHROPIC_API_KEY": "k", "MEM0_API_KEY": "k"}
    assert Settings.load(config | secret).backend == "hosted"
