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
DEPLOYMENTS = [one for one in MANIFESTS if one["kind"] == "Deployment"]


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["metadata"]["name"])
def test_a_manifest_is_valid_and_has_no_unknown_field(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_there_is_a_deployment_of_each_kind_of_worker() -> None:
    assert [container(one)["args"][:2] for one in DEPLOYMENTS] == [
        ["worker", "responses"],
        ["worker", "memories"],
    ]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_a_pod_asks_for_the_health_of_its_own_kind_and_may_drain(
    deployment: dict[str, Any],
) -> None:
    kind = container(deployment)["args"][1]
    command = container(deployment)["livenessProbe"]["exec"]["command"]
    assert command == ["afterword", "healthcheck", kind]
    assert command[1] in cli.commands
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 2 * Settings.load({}).drain_s
    assert deployment["spec"]["selector"]["matchLabels"].items() <= (
        deployment["spec"]["template"]["metadata"]["labels"].items()
    )


def test_the_settings_are_accepted_together() -> None:
    (config,) = (one["data"] for one in MANIFESTS if one["kind"] == "ConfigMap")
    secret = {"AFTERWORD_REDIS_URL": "redis://h/0", "ANTHROPIC_API_KEY": "k", "MEM0_API_KEY": "k"}
    assert Settings.load(config | secret).backend == "hosted"
