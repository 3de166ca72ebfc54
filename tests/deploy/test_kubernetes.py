"""The Kubernetes manifests are what the API server's schemas, the image and our settings allow.

`kubectl` renders them as it would before it applies them. Kubernetes' own kinds are held against
the schemas that `kubernetes-validate` ships, KEDA's against a schema of ours with the
fields that it documents: its own comes with no package that we could lock. No cluster is asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from afterword.producer import Settings
from afterword.producer.cli.main import cli
from afterword.producer.web.app import PAGES
from afterword.producer.web.options import ConsoleOptions
from afterword.producer.web.server import GRACE_S
from afterword.shared import traces
from afterword.shared.listen_address import ListenAddress
from tests.conftest import ROOT
from tests.kit.promql.queries import keda_queries

FOLDER = ROOT / "deploy/kubernetes"
KEDA = ROOT / "tests/kit/kubernetes/scaled_object.json"
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../base]
components: [{components}]
"""
KINDS = ("responses", "memories")
#: What each pod finds in the environment, besides the ConfigMap, as docs/how-to/kubernetes.md says.
SECRETS = {
    "afterword-responses": {
        "AFTERWORD_REDIS_URL": "rediss://afterword-responses:p@h/0",
        "ANTHROPIC_API_KEY": "k",
        "MEM0_API_KEY": "k",
    },
    "afterword-memories": {
        "AFTERWORD_REDIS_URL": "rediss://afterword-memories:p@h/0",
        "MEM0_API_KEY": "k",
    },
    "afterword-operator": {"AFTERWORD_REDIS_URL": "rediss://afterword-operator:p@h/0"},
    "afterword-metrics-token": {"AFTERWORD_METRICS_TOKEN": "t"},
    "afterword-traces": {"OTEL_EXPORTER_OTLP_HEADERS": "key=k"},
}

Manifest = dict[str, Any]


def kustomize(folder: Path) -> list[Manifest]:
    """Return what `kubectl apply --kustomize` would send."""
    kubectl = Path(sysconfig.get_path("scripts"), "kubectl")
    ran = subprocess.run(
        [kubectl, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return [one for one in yaml.safe_load_all(ran.stdout) if one]


@cache
def rendered(name: str) -> tuple[Manifest, ...]:
    return tuple(kustomize(FOLDER / name))


EXAMPLE = rendered("example")
PODS = [one for one in EXAMPLE if one["kind"] in {"Deployment", "StatefulSet"}]
WORKERS = [one for one in PODS if one["metadata"]["name"] != "afterword-console"]
CONFIG = next(one["data"] for one in EXAMPLE if one["kind"] == "ConfigMap")


def named(manifests: list[Manifest] | tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    (only,) = (one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return only


def of(kind: str) -> Manifest:
    (only,) = (one for one in PODS if one["metadata"]["name"] == f"afterword-{kind}")
    return only


def pod(worker: Manifest) -> Manifest:
    template = worker["spec"]["template"]["spec"]
    assert isinstance(template, dict)
    return template


def container(worker: Manifest) -> Manifest:
    (only,) = pod(worker)["containers"]
    assert isinstance(only, dict)
    return only


def is_named(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """Give a copy of the folder that a test may change."""
    copy = tmp_path / "kubernetes"
    subprocess.run(["cp", "-r", FOLDER, copy], check=True)
    return copy


@pytest.mark.parametrize("manifest", EXAMPLE, ids=is_named)
def test_a_manifest_is_valid_and_has_no_unknown_field(manifest: Manifest) -> None:
    check(manifest)


def check(manifest: Manifest) -> None:
    """Refuse a manifest that the API server would refuse, or of which it would drop something."""
    if manifest["kind"] == "ScaledObject":
        assert not keda_refuses(manifest)
        return
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def keda_refuses(manifest: Manifest) -> str:
    """Return what the schema of a ScaledObject says against a manifest."""
    ran = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--schemafile", KEDA, "-"],
        input=json.dumps(manifest),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode in {0, 1}, ran.stderr
    return ran.stdout if ran.returncode else ""


@pytest.mark.parametrize(
    "change", [{"maxReplicas": 3}, {"triggers": "many"}, {"maxReplicaCount": "1"}], ids=str
)
def test_the_check_of_scaled_objects_sees_what_is_wrong(change: dict[str, Any]) -> None:
    manifest = next(one for one in EXAMPLE if one["kind"] == "ScaledObject")
    assert keda_refuses(manifest | {"spec": manifest["spec"] | change})


@pytest.mark.parametrize("components", ["", "../components/hpa", "../components/keda"])
@pytest.mark.parametrize("more", ["", "../components/tracing, ../components/console"])
def test_each_way_to_scale_renders_and_is_valid(overlay: Path, components: str, more: str) -> None:
    mine = overlay / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(
        OVERLAY.format(components=", ".join(filter(None, (components, more))))
    )
    manifests = kustomize(mine)

    for manifest in manifests:
        check(manifest)
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in manifests if is_scaler(one)}
    assert scaled == ({"afterword-responses", "afterword-memories"} if components else set())
    for kind, name in (
        ("Deployment", "afterword-responses"),
        ("StatefulSet", "afterword-memories"),
    ):
        # Applying the manifest again must not undo what the scaler said.
        assert ("replicas" in named(manifests, kind, name)["spec"]) is not bool(components)


def is_scaler(manifest: Manifest) -> bool:
    return manifest["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}


def test_there_is_a_pod_of_each_kind() -> None:
    assert {tuple(container(one)["args"][:2]) for one in PODS} == {
        ("console", "--listen"),
        ("worker", "responses"),
        ("worker", "memories"),
        ("metrics", "--listen"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_asks_for_the_health_of_its_own_kind_and_may_drain(kind: str) -> None:
    command = container(of(kind))["livenessProbe"]["exec"]["command"]
    assert command == ["afterword", "healthcheck", kind]
    assert command[1] in cli.commands
    assert pod(of(kind))["terminationGracePeriodSeconds"] > 2 * Settings.load({}).drain_s


@pytest.mark.parametrize("kind", [*KINDS, "console"])
def test_a_drained_node_takes_one_worker_of_a_kind_at_a_time(kind: str) -> None:
    budget = named(EXAMPLE, "PodDisruptionBudget", f"afterword-{kind}")["spec"]
    assert budget["maxUnavailable"] == 1
    labels = of(kind)["spec"]["template"]["metadata"]["labels"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    assert len(budget["selector"]["matchLabels"]) == 2


@pytest.mark.parametrize("worker", PODS, ids=is_named)
def test_a_selector_fits_only_its_own_pods(worker: Manifest) -> None:
    selector = worker["spec"]["selector"]["matchLabels"].items()
    fits = [
        one["metadata"]["name"]
        for one in PODS
        if selector <= one["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert fits == [worker["metadata"]["name"]]


@pytest.mark.parametrize("worker", PODS, ids=is_named)
def test_a_pod_can_do_nothing_to_its_node(worker: Manifest) -> None:
    assert pod(worker)["securityContext"]["runAsNonRoot"] is True
    assert pod(worker)["automountServiceAccountToken"] is False
    assert container(worker)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container(worker)["resources"]["limits"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_can_write_where_it_keeps_what_it_saw_of_the_ledger(kind: str) -> None:
    mounts = {one["mountPath"]: one["name"] for one in container(of(kind))["volumeMounts"]}
    volume = mounts[CONFIG["AFTERWORD_STATE_DIR"]]
    own = {one["name"] for one in pod(of(kind))["volumes"]}
    claimed = {one["metadata"]["name"] for one in of(kind)["spec"].get("volumeClaimTemplates", ())}
    assert volume in own | claimed


def test_what_memory_workers_saw_outlives_their_pods() -> None:
    """Those that start on an older ledger make the whole fleet ask mem0 before a turn is added."""
    (claim,) = of("memories")["spec"]["volumeClaimTemplates"]
    mounts = {one["name"]: one["mountPath"] for one in container(of("memories"))["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == CONFIG["AFTERWORD_STATE_DIR"]
    security = pod(of("memories"))["securityContext"]
    assert security["fsGroup"] == security["runAsUser"]


@pytest.mark.parametrize("worker", WORKERS, ids=is_named)
def test_a_pod_has_the_settings_that_it_needs_and_no_other_role_s_secret(worker: Manifest) -> None:
    sources = container(worker)["envFrom"]
    secrets = [one["secretRef"]["name"] for one in sources if "secretRef" in one]
    if role_of(worker) != "operator":  # the exporter makes no spans
        assert secrets.pop() == "afterword-traces"
    given = CONFIG | {name: text for one in secrets for name, text in SECRETS[one].items()}
    settings = Settings.load(given)
    assert settings.backend == "hosted"
    assert settings.metrics_token is not None
    assert secrets == [f"afterword-{role_of(worker)}", "afterword-metrics-token"]


def role_of(worker: Manifest) -> str:
    """Return whose user of Redis a pod is."""
    what, of_it, *_ = container(worker)["args"]
    return of_it if what == "worker" else "operator"


def test_spans_go_where_the_config_map_says() -> None:
    assert CONFIG["AFTERWORD_TRACES"] == "true"
    endpoint = urlsplit(CONFIG["OTEL_EXPORTER_OTLP_ENDPOINT"])
    assert traces._check(CONFIG) == f"{endpoint.hostname}:{endpoint.port}"
    secret = container(of("responses"))["envFrom"][-1]["secretRef"]
    assert secret == {"name": "afterword-traces", "optional": True}
    allowed = named(EXAMPLE, "NetworkPolicy", "afterword")["spec"]["egress"]
    (rule,) = (one for one in allowed if {"protocol": "TCP", "port": endpoint.port} in one["ports"])
    (namespace,) = (one["namespaceSelector"]["matchLabels"].values() for one in rule["to"])
    assert [*namespace] == [(endpoint.hostname or "").rpartition(".")[2]]


def test_the_console_has_the_operators_secret_and_asks_for_a_key() -> None:
    secrets = [one["secretRef"]["name"] for one in container(of("console"))["envFrom"][1:]]
    assert secrets == ["afterword-operator", "afterword-traces"]
    Settings.load(CONFIG | SECRETS["afterword-operator"])
    options = console_options()
    assert options.needs_key
    assert options.is_https
    assert replace(options, origin="").needs_key, "not only because of its origin"
    assert pod(of("console"))["terminationGracePeriodSeconds"] > 2 * GRACE_S


def console_options() -> ConsoleOptions:
    args = container(of("console"))["args"]
    said = dict(zip(args[1::2], args[2::2], strict=True))
    assert {*said} <= {word for one in cli.commands["console"].params for word in one.opts}
    return ConsoleOptions(ListenAddress.parse(said["--listen"]), "console", said["--origin"])


def test_only_what_ends_tls_reaches_the_console_and_its_probes_are_answered() -> None:
    (port,) = container(of("console"))["ports"]
    assert port == {"name": "http", "containerPort": console_options().listen.port}
    policy = named(EXAMPLE, "NetworkPolicy", "afterword-console")["spec"]
    labels = of("console")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert not [one for one in WORKERS if policy["podSelector"]["matchLabels"].items()
                <= one["spec"]["template"]["metadata"]["labels"].items()]  # fmt: skip
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": port["containerPort"]}]
    service = named(EXAMPLE, "Service", "afterword-console")["spec"]
    assert service["selector"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] == port["name"]
    probe = container(of("console"))["readinessProbe"]["httpGet"]
    assert f"GET {probe['path']}" in {f"{page.method} {page.path}" for page in PAGES}
    (host,) = (one["value"] for one in probe["httpHeaders"] if one["name"] == "Host")
    assert console_options().accepts_host(host)
    assert not console_options().accepts_host("10.1.2.3:9466"), "so the probe must name one"
    assert "tcpSocket" in container(of("console"))["livenessProbe"]


def test_the_page_says_which_secrets_there_must_be() -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text()
    for name, values in SECRETS.items():
        assert f"create secret generic {name} " in page
        for variable in values:
            assert variable in page


def test_prometheus_reaches_the_port_that_serves_metrics_and_nothing_else_does() -> None:
    (rule,) = named(EXAMPLE, "NetworkPolicy", "afterword")["spec"]["ingress"]
    port = int(CONFIG["AFTERWORD_METRICS_LISTEN"].rpartition(":")[2])
    assert rule["ports"] == [{"protocol": "TCP", "port": port}]
    for worker in WORKERS:
        assert [one["containerPort"] for one in container(worker)["ports"]] == [port]
        template = worker["spec"]["template"]["metadata"]
        assert template["annotations"]["prometheus.io/port"] == str(port)
    listen = container(of("metrics"))["args"][2]
    assert listen == CONFIG["AFTERWORD_METRICS_LISTEN"]


def test_only_workers_reach_providers() -> None:
    for name, fits in (("afterword", 3), ("afterword-providers", 2)):
        selector = named(EXAMPLE, "NetworkPolicy", name)["spec"]["podSelector"]
        allowed = {
            label for one in selector.get("matchExpressions", ()) for label in one["values"]
        } or {"responses", "memories", "metrics"}
        labels = [one["spec"]["template"]["metadata"]["labels"] for one in WORKERS]
        chosen = [
            one
            for one in labels
            if selector["matchLabels"].items() <= one.items()
            and one["app.kubernetes.io/component"] in allowed
        ]
        assert len(chosen) == fits


def test_a_worker_of_which_more_are_wanted_still_has_free_slots() -> None:
    slots = {
        "responses": float(container(of("responses"))["args"][3]),
        "memories": float(Settings.load({}).concurrency),
    }
    wanted = {name: most for name, _, most in keda_queries() if name.endswith("in-flight")}
    assert wanted == {f"{kind} in-flight": 0.7 * most for kind, most in slots.items()}
