"""The manifests under deploy/kubernetes: rendered by kustomize, valid, and of one mind with the agent."""

import functools
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped] # it has no types
import manifests
import pytest
import trustme
from manifests import KUBERNETES, NODES, Agent, agents, privileges, quantity, render
from typer.core import TyperGroup
from typer.main import get_command

from agent.app import READY_BROKER_S, READY_DEVICES_S
from agent.cli.app import app
from agent.profile import load_profile
from agent.settings import Settings, load_settings

pytestmark = pytest.mark.peer("kubectl")
FOLDERS = manifests.folders()
RUNNING = [folder for folder in FOLDERS if folder != "overlays/monitoring"]
OLDEST, NEWEST = "1.29", "1.37"
"""The versions of Kubernetes that docs/deploy.md names."""
CUSTOM = ("NetworkAttachmentDefinition", "PrometheusRule", "ServiceMonitor")
STOP_S = 10.0
"""How long a graceful stop may take."""
TEXT = (KUBERNETES.parents[1] / "docs" / "deploy.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def _kustomize(need: Callable[[str, str | None, str], None]) -> None:
    need("kubectl", manifests.why_missing(), manifests.GET)


def the_agent(folder: str) -> Agent:
    (agent,) = agents(render(KUBERNETES / folder))
    return agent


def test_every_folder_is_looked_at() -> None:
    assert {"base", "overlays/sidecar/sil", "overlays/multus/ipvlan", "overlays/openshift"} <= set(FOLDERS)
    assert all(f"`{folder}`" in TEXT for folder in FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_is_valid(folder: str) -> None:
    for manifest in render(KUBERNETES / folder):
        validate(json.dumps(manifest))


@functools.cache  # most manifests are the same in many folders
def validate(text: str) -> None:
    manifest = json.loads(text)
    if manifest["kind"] in CUSTOM:
        jsonschema.Draft202012Validator(manifests.crd(manifest["kind"])).validate(manifest)
        return
    for version in (OLDEST, NEWEST):
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_slip_is_not_valid() -> None:
    """The check itself: a field of no meaning, in what Kubernetes knows and in what is custom."""
    for manifest in render(KUBERNETES / "overlays/multus/macvlan"):
        slip = json.loads(json.dumps(manifest))
        spec = slip.get("spec", slip)
        (spec.get("endpoints") or spec.get("groups") or [spec])[0]["slip"] = 1
        if manifest["kind"] in CUSTOM:
            assert not jsonschema.Draft202012Validator(manifests.crd(manifest["kind"])).is_valid(slip)
        else:
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(slip, NEWEST, strict=True)


def test_the_oldest_and_newest_version_are_named() -> None:
    assert f"Kubernetes {OLDEST} to {NEWEST}" in TEXT


@pytest.mark.parametrize("folder", RUNNING)
def test_it_has_no_privilege_but_what_bench_hosts_need(folder: str) -> None:
    hosts = {"hostNetwork", "hostPath"} if "daemonset" in folder else set()
    assert privileges(the_agent(folder)) == hosts


@pytest.mark.parametrize("folder", [name for name in RUNNING if re.search("openshift|sidecar", name)])
def test_it_fits_restricted_v2(folder: str) -> None:
    """That SCC gives user, group and label out of the project's range, and refuses others."""
    agent = the_agent(folder)
    for context in (agent.pod["securityContext"], agent.container["securityContext"]):
        assert not {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "seLinuxOptions"} & set(
            context
        )


@pytest.mark.parametrize("folder", RUNNING)
def test_it_has_resources_and_probes(folder: str) -> None:
    agent = the_agent(folder)
    container = agent.container
    limits, requests = container["resources"]["limits"], container["resources"]["requests"]
    for resource in ("cpu", "memory"):
        assert 0 < quantity(requests[resource]) <= quantity(limits[resource])
    (port,) = container["ports"]
    probed = {"startupProbe": "/startupz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in probed.items():
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
    # Else a device that hangs would have the agent restarted for ever.
    patience = container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"]
    assert patience >= READY_DEVICES_S + READY_BROKER_S + 20
    assert port["containerPort"] == 8080
    assert all("subPath" not in mount for mount in container["volumeMounts"])
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert agent.pod["automountServiceAccountToken"] is False
    # A name without a registry would be looked for at a public one, where it is anybody's.
    assert re.fullmatch(r"registry\.example/hilgate:[0-9.]+", container["image"])


@pytest.mark.parametrize("folder", RUNNING)
def test_two_agents_of_one_bench_never_are(folder: str) -> None:
    spec = the_agent(folder).workload["spec"]
    kind = the_agent(folder).workload["kind"]
    if kind == "DaemonSet":
        # And a change for one bench ends no other's lease.
        assert spec["updateStrategy"] == {"type": "OnDelete"}
    else:
        assert spec["replicas"] == 1
    if kind == "StatefulSet":
        assert [one["spec"]["accessModes"] for one in spec["volumeClaimTemplates"]] == [["ReadWriteOncePod"]]
        # OrderedReady never replaces a pod that does not get ready: a wrong profile would stay.
        assert spec["podManagementPolicy"] == "Parallel"
    if kind == "Deployment":
        assert spec["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("folder", RUNNING)
def test_selectors_and_names_meet(folder: str) -> None:
    agent = the_agent(folder)
    labels = agent.template["metadata"]["labels"]
    selectors = [agent.workload["spec"]["selector"]["matchLabels"]]
    for manifest in agent.manifests:
        match manifest["kind"]:
            case "Service":
                selectors.append(manifest["spec"]["selector"])
                assert [one["targetPort"] for one in manifest["spec"]["ports"]] == ["http"]
                service = manifest
            case "PodDisruptionBudget":
                selectors.append(manifest["spec"]["selector"]["matchLabels"])
            case "NetworkPolicy":
                selectors.append(manifest["spec"]["podSelector"]["matchLabels"])
                (rule,) = manifest["spec"]["ingress"]
                assert [port["port"] for port in rule["ports"]] == ["http"]
            case "ServiceMonitor":
                assert (
                    manifest["spec"]["selector"]["matchLabels"].items()
                    <= service["metadata"]["labels"].items()
                )
                assert [one["port"] for one in manifest["spec"]["endpoints"]] == ["http"]
                alerts = (KUBERNETES.parent / "prometheus" / "alerts.yaml").read_text("utf-8")
                job = service["metadata"]["labels"][manifest["spec"]["jobLabel"]]
                assert set(re.findall(r'job="(.*?)"', alerts)) == {job}
                credentials = manifest["spec"]["endpoints"][0]["authorization"]["credentials"]
                assert credentials["key"] in manifests.SECRETS[credentials["name"]]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    if "serviceAccountName" in agent.pod:
        agent.named("ServiceAccount", agent.pod["serviceAccountName"])


def unpacked(agent: Agent, folder: Path) -> Callable[[str], str]:
    """Lays the agent's files out under a folder; gives what turns a path in the container into one there."""
    authority = trustme.CA()
    issued = authority.issue_cert("hilgate.example")
    pems = {
        "ca.crt": authority.cert_pem.bytes(),
        "tls.crt": b"".join(pem.bytes() for pem in issued.cert_chain_pems),
        "tls.key": issued.private_key_pem.bytes(),
    }

    def here(text: str) -> str:
        return re.sub(r"/(etc/hilgate|run/secrets/hilgate|var/lib/hilgate)\b", rf"{folder}/\1", text)

    for path, text in agent.files().items():
        file = Path(here(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pems.get(file.name, here(text).encode()))
    return here


def settled(agent: Agent, node: str, here: Callable[[str], str]) -> Settings:
    """The settings that the agent would start with."""
    words = agent.arguments(node)
    environ = {name: here(value) for name, value in agent.environment(node).items()}
    return load_settings(Path(here(words[words.index("--settings") + 1])), environ, {})


@pytest.mark.parametrize("folder", RUNNING)
def test_settings_and_profiles_are_valid(folder: str, tmp_path: Path) -> None:
    agent = the_agent(folder)
    here = unpacked(agent, tmp_path)
    for node in NODES if agent.workload["kind"] == "DaemonSet" else ("any",):
        settings = settled(agent, node, here)
        command, profile, *_ = agent.arguments(node)
        assert command == "run"
        assert load_profile(here(profile)).devices
        assert settings.broker.startswith("amqps://")
        assert settings.tls_verify
        assert settings.sil == (folder == "overlays/sidecar/sil")
        assert settings.http == f"0.0.0.0:{agent.container['ports'][0]['containerPort']}"
        assert settings.http_token_file == tmp_path / "run/secrets/hilgate/http-token"
        assert settings.store == tmp_path / "var/lib/hilgate"
        assert settings.log_format == "json"


@pytest.mark.parametrize("folder", RUNNING)
def test_the_store_has_room_for_the_outbox(folder: str, tmp_path: Path) -> None:
    agent = the_agent(folder)
    (mount,) = [one for one in agent.container["volumeMounts"] if one["mountPath"] == "/var/lib/hilgate"]
    assert not mount.get("readOnly")
    volume = agent.volume(mount["name"])
    if "hostPath" in volume:
        assert volume["hostPath"]["type"] == "Directory"  # else root would make it, for root alone
        return
    if "emptyDir" in volume:
        size = volume["emptyDir"]["sizeLimit"]
    else:
        size = volume["claim"]["spec"]["resources"]["requests"]["storage"]
    settings = settled(agent, "any", unpacked(agent, tmp_path))
    assert quantity(size) >= 2 * settings.outbox_size


@pytest.mark.parametrize("folder", RUNNING)
def test_it_is_called_as_it_can_be(folder: str) -> None:
    agent = the_agent(folder)
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    program, *words = agent.container["lifecycle"]["preStop"]["exec"]["command"]
    if program == "/opt/hilgate/bin/python":
        script = "import os; os.execv = lambda program, words: print(program, *words[1:])\n" + words[-1]
        environ = {"NODE_NAME": "$(NODE_NAME)"}
        told = subprocess.check_output([sys.executable, *words[:-1], script], env=environ, text=True)
        program, *words = told.split()
    assert program == "/opt/hilgate/bin/hilgate"
    run, stop = agent.container["args"], words
    assert (run[0], stop[0]) == ("run", "safe-state")
    made = [group.commands[one[0]].make_context(one[0], list(one[1:])).params for one in (run, stop)]
    assert made[0]["profile"] == made[1]["profile"]
    assert made[0]["settings"] == made[1]["settings"]
    # The kubelet runs it while the agent, and what stands beside it, still works.
    assert (made[1]["force"], made[1]["if_stalled"]) == (False, True)
    # The kubelet's time runs from before preStop on; a process needs a moment to start, and to ask.
    whole, least = agent.pod["terminationGracePeriodSeconds"], made[1]["within"] + STOP_S + 10
    assert whole >= least
    # One that hangs is killed no later than that.
    assert least <= agent.container["livenessProbe"].get("terminationGracePeriodSeconds", whole) <= 30


def test_a_sidecar_of_real_devices_begins_with_a_safe_bench() -> None:
    """Its store is as short-lived as the pod: the agent could not know that one before it was killed."""
    manifests = render(KUBERNETES / "overlays/sidecar/hil")
    (agent,), (first,) = agents(manifests), agents(manifests, "safe-state")
    assert [one["name"] for one in agent.pod["initContainers"]] == ["make-safe", "hilgate"]
    assert agent.container["image"] == first.container["image"]
    assert agent.environment("any") == first.environment("any")
    assert agent.container["volumeMounts"] == first.container["volumeMounts"]
    assert first.arguments("any")[1:4] == agent.arguments("any")[1:]
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    words = first.arguments("any")[1:]
    params = group.commands["safe-state"].make_context("safe-state", words).params
    # Nobody is at work there yet: with force it would leave no word in the store.
    assert (params["force"], params["if_stalled"]) == (False, False)


@pytest.mark.parametrize("folder", RUNNING)
def test_secrets_are_in_the_documentation(folder: str) -> None:
    for volume in the_agent(folder).pod["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            name = source["secret"]["name"]
            assert re.search(rf"kubectl create secret \w+ {name} ", TEXT)


NETWORKS = "k8s.v1.cni.cncf.io/networks"
CNI: dict[str, Any] = {  # what the plug-ins' own documentation asks for: there is no schema of theirs
    "macvlan": {"master": str, "mode": str, "capabilities": dict, "ipam": dict},
    "ipvlan": {"master": str, "mode": str, "capabilities": dict, "ipam": dict},
    "host-device": {"device": str},
}


@pytest.mark.parametrize("folder", [name for name in RUNNING if re.search("multus|hil$", name)])
def test_the_pod_asks_for_networks_that_there_are(folder: str) -> None:
    agent = the_agent(folder)
    for asked in json.loads(agent.template["metadata"]["annotations"][NETWORKS]):
        definition = agent.named("NetworkAttachmentDefinition", asked["name"])
        config = json.loads(definition["spec"]["config"])
        assert (config["cniVersion"], config["name"]) == ("1.0.0", asked["name"])
        (plugin,) = config["plugins"]
        fields = CNI[plugin["type"]]
        assert all(isinstance(plugin[name], fields[name]) for name in fields if name in plugin)
        if "ips" in asked:
            # Without both the address would be asked for, and quietly not given.
            assert plugin["capabilities"] == {"ips": True}
            assert plugin["ipam"] == {"type": "static"}
            assert not {"gateway", "default-route"} & asked.keys()
            assert re.fullmatch(r"[0-9.]+/\d+", asked["ips"][0])
        else:
            assert asked["interface"] == plugin["device"] == "can0"


@pytest.mark.parametrize("folder", [name for name in RUNNING if re.search("multus|hil$", name)])
def test_the_pod_goes_to_nodes_with_its_network(folder: str) -> None:
    """Each of these networks stands on an interface of the node, and not each node has it."""
    ((label, value),) = the_agent(folder).pod["nodeSelector"].items()
    assert value == "true"
    assert f"{label}=true" in TEXT


@pytest.mark.parametrize(
    ("folder", "resource"),
    [("can-device", "k8s.collabora.com/socketcan-can0"), ("daemonset-serial", "squat.ai/serial")],
)
def test_devices_are_asked_for_as_resources(folder: str, resource: str) -> None:
    assert the_agent(f"overlays/{folder}").container["resources"]["limits"][resource] == "1"


def assert_apart(first: Agent, second: Agent) -> None:
    """No selector of one matches the other's pod."""
    for one, other in ((first, second), (second, first)):
        labels = one.template["metadata"]["labels"]
        for manifest in other.manifests:
            if manifest["kind"] == "ServiceMonitor":  # it selects Services
                continue
            spec = manifest.get("spec", {})
            selector = spec.get("podSelector") or spec.get("selector") or {}
            matched = selector.get("matchLabels", selector)
            assert not (matched and matched.items() <= labels.items()), manifest["kind"]


def test_those_of_one_namespace_are_told_apart() -> None:
    """A pod behind two Services would be scraped twice, which the alert rules do not bear."""
    can, serial = the_agent("overlays/daemonset"), the_agent("overlays/daemonset-serial")
    for one, other in itertools.combinations((the_agent("base"), can, serial), 2):
        assert_apart(one, other)
    (monitor,) = [one for one in can.manifests if one["kind"] == "ServiceMonitor"]
    for manifest in (*can.manifests, *serial.manifests):
        if manifest["kind"] == "Service":
            labels = manifest["metadata"]["labels"]
            assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_hundred_benches_are_made_as_the_page_shows(tmp_path: Path) -> None:
    """The kustomization in docs/deploy.md twice in one namespace: no name is shared, no pod another's."""
    (block,) = re.findall(
        r"^```yaml\n(# benches/rig-07/kustomization.yaml\n.*?)^```", TEXT, re.DOTALL | re.MULTILINE
    )
    rendered = []
    (tmp_path / "kubernetes").symlink_to(KUBERNETES)
    for rig in ("rig-07", "rig-08"):
        folder = tmp_path / "benches" / rig
        folder.mkdir(parents=True)
        for file in ("profile.yaml", "settings.yaml"):
            text = (KUBERNETES / "base" / file).read_text("utf-8").replace("rig-07", rig)
            (folder / file).write_text(text, "utf-8")
        (folder / "kustomization.yaml").write_text(block.replace("rig-07", rig), "utf-8")
        rendered.append(render(folder))
    names = [{(one["kind"], one["metadata"]["name"]) for one in each} for each in rendered]
    assert not names[0] & names[1]
    (first,), (second,) = (list(agents(each)) for each in rendered)
    assert_apart(first, second)
    assert settled(second, "any", unpacked(second, tmp_path / "files")).bench == "rig-08"


@pytest.mark.parametrize("folder", [name for name in RUNNING if not re.search("sidecar|daemonset", name)])
def test_the_policy_lets_metrics_in_and_the_agent_out_to_broker_and_dns(folder: str) -> None:
    agent = the_agent(folder)
    spec = agent.named("NetworkPolicy", agent.workload["metadata"]["name"])["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    (way_in,) = spec["ingress"]
    assert [port["port"] for port in way_in["ports"]] == ["http"]
    assert all(peer["namespaceSelector"]["matchLabels"] for peer in way_in["from"])
    broker, names = spec["egress"]
    assert [(port["port"], port["protocol"]) for port in broker["ports"]] == [(5671, "TCP")]
    # OpenShift's DNS pods listen on a port of their own.
    dns = 5353 if "openshift" in folder else 53
    assert [(port["port"], port["protocol"]) for port in names["ports"]] == [(dns, "UDP"), (dns, "TCP")]
    assert all(peer["namespaceSelector"]["matchLabels"] for rule in spec["egress"] for peer in rule["to"])
