"""Rendered manifests as the cluster would see them: workloads, containers, and what is mounted where."""

import functools
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from brokers.process import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
KUBECTL = ROOT / ".cache" / "peers" / "kubectl"
CRDS = ROOT / ".cache" / "peers" / "crds"
GET = "tests/tools/get-peers kubectl crds"
NODES = ("bench-07", "bench-08")
"""What the nodes of overlays/daemonset are called."""
SECRETS = {"hilgate-tls": ("ca.crt", "tls.crt", "tls.key"), "hilgate-http": ("token",)}
"""The secrets that docs/deploy.md has people make, and the keys in them."""

Manifest = dict[str, Any]


def why_missing() -> str | None:
    """None where kustomize and the schemas are there."""
    absent = [path.name for path in (KUBECTL, CRDS) if not path.exists()]
    return f"no {' and no '.join(absent)} in .cache/peers" if absent else None


def folders() -> list[str]:
    """The base and every overlay that can be applied, named from deploy/kubernetes."""
    found = [path.parent for path in KUBERNETES.rglob("kustomization.yaml")]
    kept = [path for path in found if "components" not in path.parts and path.name != "environment"]
    return sorted(str(path.relative_to(KUBERNETES)) for path in kept)


@functools.cache
def render(folder: Path) -> tuple[Manifest, ...]:
    """What `kubectl apply -k` would send.

    Raises:
        AssertionError: kustomize fails, or warns.
    """
    command = [str(KUBECTL), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return tuple(yaml.safe_load_all(done.stdout))


@functools.cache
def crd(kind: str) -> Mapping[str, Any]:
    """The schema of a custom resource in the definition that its project publishes."""
    for file in sorted(CRDS.iterdir()):
        for document in yaml.safe_load_all(file.read_text("utf-8")):
            if document["kind"] == "CustomResourceDefinition" and document["spec"]["names"]["kind"] == kind:
                (version,) = [one for one in document["spec"]["versions"] if one["name"] == "v1"]
                closed: Mapping[str, Any] = _closed(version["schema"]["openAPIV3Schema"])
                return closed
    raise AssertionError(f"no definition of {kind} in {CRDS}")


_OPEN = "x-kubernetes-preserve-unknown-fields"


def _closed(schema: Any) -> Any:
    """The schema with unknown fields forbidden, as `kubectl apply --validate=strict` takes it."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if "properties" in schema and not {"additionalProperties", _OPEN} & schema.keys():
        closed["additionalProperties"] = False
    # The API server knows these by itself, and some definitions leave them out.
    if "spec" in schema.get("properties", {}):
        closed["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        closed["properties"]["metadata"] = {"type": "object"}
    return closed


@dataclass(frozen=True)
class Agent:
    """One container of hilgate, in the pod template that it is in."""

    workload: Manifest
    container: Manifest
    manifests: tuple[Manifest, ...] = field(repr=False)

    @property
    def template(self) -> Manifest:
        """The pod template."""
        return self.workload["spec"]["template"]  # type: ignore[no-any-return] # manifests are plain YAML

    @property
    def pod(self) -> Manifest:
        """The pod's specification."""
        return self.template["spec"]  # type: ignore[no-any-return] # manifests are plain YAML

    def environment(self, node: str) -> dict[str, str]:
        """Its environment on a node of that name."""
        environ: dict[str, str] = {}
        for source in self.container.get("envFrom", []):
            environ |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in self.container.get("env", []):
            value = variable.get("value")
            if value is None:
                path = variable["valueFrom"]["fieldRef"]["fieldPath"]
                if (found := re.fullmatch(r"metadata\.annotations\['(.+)'\]", path)) is not None:
                    value = self.template["metadata"]["annotations"][found[1]]
                else:
                    value = {"spec.nodeName": node}[path]
            environ[variable["name"]] = value
        return environ

    def arguments(self, node: str) -> list[str]:
        """Its arguments, with the variables in them filled in as the kubelet does."""
        environ = self.environment(node)
        return [
            re.sub(r"\$\((\w+)\)", lambda name: environ[name[1]], word) for word in self.container["args"]
        ]

    def files(self) -> dict[str, str]:
        """The text of every file mounted from a ConfigMap or a Secret, by its path in the container."""
        found: dict[str, str] = {}
        for mount in self.container["volumeMounts"]:
            volume = self.volume(mount["name"])
            contents: dict[str, str] = {}
            if "configMap" in volume:
                contents = self.named("ConfigMap", volume["configMap"]["name"])["data"]
            for source in volume.get("projected", {}).get("sources", []):
                keys = SECRETS[source["secret"]["name"]]
                items = source["secret"].get("items") or [{"key": key, "path": key} for key in keys]
                assert {item["key"] for item in items} <= set(keys)
                contents |= {item["path"]: f"{source['secret']['name']} {item['key']}" for item in items}
            found |= {f"{mount['mountPath']}/{name}": text for name, text in contents.items()}
        return found

    def volume(self, name: str) -> Manifest:
        """A volume of the pod; one of a claim template as its claim."""
        claims = self.workload["spec"].get("volumeClaimTemplates", [])
        volumes = [*self.pod["volumes"], *({"name": one["metadata"]["name"], "claim": one} for one in claims)]
        (volume,) = [one for one in volumes if one["name"] == name]
        return volume  # type: ignore[no-any-return] # manifests are plain YAML

    def named(self, kind: str, name: str) -> Manifest:
        """Another manifest of the same rendering."""
        (found,) = [one for one in self.manifests if one["kind"] == kind and one["metadata"]["name"] == name]
        return found


def agents(manifests: tuple[Manifest, ...], command: str = "run") -> Iterator[Agent]:
    """Every container in which hilgate runs as an agent, or has another command."""
    for workload in manifests:
        if workload["kind"] in ("StatefulSet", "Deployment", "DaemonSet"):
            pod = workload["spec"]["template"]["spec"]
            for container in [*pod.get("initContainers", []), *pod["containers"]]:
                image = re.split("[:@]", container["image"].rpartition("/")[2])[0]
                if image == "hilgate" and container["args"][0] == command:
                    yield Agent(workload, container, manifests)


def privileges(agent: Agent) -> set[str]:
    """In what the pod goes over the Pod Security Standard `restricted`, or is not read-only."""
    pod = agent.pod
    found: set[str] = set()
    found |= {
        name for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace") if pod.get(name)
    }
    for volume in pod["volumes"]:
        kinds = set(volume) - {"name"}
        found |= kinds - {
            "configMap",
            "csi",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        }
    around = pod.get("securityContext", {})
    found |= {f"pod.{name}" for name in ("sysctls", "seLinuxOptions", "windowsOptions") if name in around}
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        name, own = container["name"], container.get("securityContext", {})
        seccomp = own.get("seccompProfile") or around.get("seccompProfile") or {}
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "runAsNonRoot": own.get("runAsNonRoot", around.get("runAsNonRoot")) is True,
            "runAsUser": own.get("runAsUser", around.get("runAsUser")) != 0,
            "seccompProfile": seccomp.get("type") == "RuntimeDefault",
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
        }
        found |= {f"{name}.{rule}" for rule, kept in rules.items() if not kept}
    return found


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: `100m`, `256Mi`, `2`."""
    number, unit = re.fullmatch(r"([0-9.]+)(\D*)", text).groups()  # type: ignore[union-attr] # None is a failed test
    factors = {"m": 0.001, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
    return float(number) * factors[unit]
