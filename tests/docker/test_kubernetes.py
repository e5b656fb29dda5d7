# SPDX-License-Identifier: Apache-2.0
"""The manifests under docker/kubernetes: valid by the schemas of Kubernetes, and what they must say."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import yaml

from engine import PROJECT, TAG, USER, docker

KUBERNETES = PROJECT / "docker" / "kubernetes"
VALIDATOR = "kubernetes-validate==1.37.0"
LABEL = {"app.kubernetes.io/name": "qkdgate"}
SECRETS = ("master.key", "kme.pem", "kme.key", "ca.pem", "crl.pem")


def documents():
    """{(kind, name): document} of the base."""
    base = KUBERNETES / "base"
    found = {}
    for name in yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]:
        for document in yaml.safe_load_all((base / name).read_text()):
            key = (document["kind"], document["metadata"]["name"])
            assert key not in found
            found[key] = document
    listed = {base / name for name in yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]}
    assert listed | {base / "kustomization.yaml"} == set(base.iterdir())
    return found


def pod():
    return documents()["StatefulSet", "qkdgate"]["spec"]["template"]["spec"]


@pytest.fixture(scope="session")
def validate():
    """A function that says what is wrong with a document, by the schemas of PyPI's kubernetes-validate."""
    folder = PROJECT / "build" / "docker" / "validator"
    python = folder / "bin" / "python"
    code = "import json, sys, kubernetes_validate as k\n" \
           "k.validate(json.load(sys.stdin), '1.37', strict=True)\n"
    if subprocess.run([python, "-c", "import kubernetes_validate"], capture_output=True, check=False,
                      env={}).returncode if python.exists() else True:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        got = subprocess.run([python, "-m", "pip", "install", "-q", VALIDATOR], capture_output=True, text=True, check=False)
        if got.returncode != 0:
            pytest.skip(f"no schema validator can be had: {got.stderr[-300:]}")

    def faults(document):
        done = subprocess.run([python, "-c", code], input=json.dumps(document), capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stderr
    return faults


def test_schemas(validate):
    for key, document in documents().items():
        assert validate(document) == "", key


def test_the_validator_finds_mistakes(validate):
    good = documents()["StatefulSet", "qkdgate"]
    for mistake in ({"replicas": "one"}, {"replica": 1}, {"selector": "qkdgate"}):
        bad = copy.deepcopy(good)
        bad["spec"].update(mistake)
        assert "ValidationError" in validate(bad), mistake


def test_all_that_is_needed_is_there():
    kinds = sorted(kind for kind, _ in documents())
    assert kinds == ["NetworkPolicy", "PodDisruptionBudget", "Service", "Service", "Service", "StatefulSet"]


def test_selectors_find_the_pod():
    docs = documents()
    spec = docs["StatefulSet", "qkdgate"]["spec"]
    assert spec["template"]["metadata"]["labels"] == spec["selector"]["matchLabels"] == LABEL
    assert spec["replicas"] == 1 and ("Service", spec["serviceName"]) in docs
    ports = {p["name"] for p in spec["template"]["spec"]["containers"][0]["ports"]}
    for (kind, name), document in docs.items():
        if kind == "Service":
            assert document["spec"]["selector"] == LABEL, name
            assert {p["targetPort"] for p in document["spec"]["ports"]} <= ports, name
    assert docs["PodDisruptionBudget", "qkdgate"]["spec"]["selector"]["matchLabels"] == LABEL
    assert docs["NetworkPolicy", "qkdgate"]["spec"]["podSelector"]["matchLabels"] == LABEL


def test_the_pod_is_confined():
    """What the `restricted` level of the Pod Security Standards asks for, and more."""
    spec = pod()
    (container,) = spec["containers"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False and "env" not in container
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert [v for v in spec["volumes"] if "hostPath" in v] == []
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "scrape"


def test_secrets_and_volumes():
    spec = pod()
    mounts = {m["name"]: m for m in spec["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v for v in spec["volumes"]}
    claims = {c["metadata"]["name"] for c in documents()["StatefulSet", "qkdgate"]["spec"]["volumeClaimTemplates"]}
    assert set(mounts) == set(volumes) | claims
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    assert mounts["secrets"] == {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}
    assert {mounts[c]["mountPath"] for c in claims} == \
        {"/var/lib/qkdgate", "/var/lib/qkdgate-anchor", "/var/log/qkdgate"}


def test_the_network_policy_lets_nobody_else_in():
    spec = documents()["NetworkPolicy", "qkdgate"]["spec"]
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    for way, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec[way]:
            assert rule[peers] and rule["ports"]
            for peer in rule[peers]:
                assert any(selector.get("matchLabels") for selector in peer.values()), peer


def test_the_example_is_complete(tmp_path):
    """With secrets as the job of the example networks makes them, its configuration is right in a container
    whose secrets have the mode and group of a pod's."""
    example = yaml.safe_load((KUBERNETES / "example" / "kustomization.yaml").read_text())
    assert sorted(example["secretGenerator"][0]["files"]) == sorted(f"secrets/{name}" for name in SECRETS)
    assert not (KUBERNETES / "example" / "secrets").exists()
    assert example["secretGenerator"][0]["name"] == "qkdgate-secrets"
    assert example["configMapGenerator"] == [{"name": "qkdgate-config", "files": ["qkdgate.yaml"]}]
    script = "demo-pki kme-a; cp -r /secrets/kme-a/. /out/; " \
             f"chmod 0755 /out; chown 0:{USER} /out/*; chmod 0440 /out/*"
    docker("run", "--rm", "--network", "none", "--user", "0:0", "--entrypoint", "sh", "-v", f"{tmp_path}:/out",
           f"qkdgate-sim:{TAG}", "-euc", script)
    done = docker("run", "--rm", "--network", "none", "--cap-drop", "ALL", "-v", f"{tmp_path}:/run/secrets:ro",
                  "-v", f"{KUBERNETES}/example/qkdgate.yaml:/etc/qkdgate/qkdgate.yaml:ro", f"qkdgate:{TAG}",
                  "check-config", "/etc/qkdgate/qkdgate.yaml", check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "/etc/qkdgate/qkdgate.yaml: ok\n")


if shutil.which("kubectl"):  # the other tests read the files themselves
    @pytest.mark.parametrize("folder", ["base", "example"])
    def test_kustomize_renders(folder, tmp_path, validate):
        shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
        (tmp_path / "kubernetes" / "example" / "secrets").mkdir()
        for name in SECRETS:
            (tmp_path / "kubernetes" / "example" / "secrets" / name).write_text("x")
        done = subprocess.run(["kubectl", "kustomize", tmp_path / "kubernetes" / folder], capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stderr
        rendered = list(yaml.safe_load_all(done.stdout))
        assert len(rendered) == {"base": 6, "example": 8}[folder]
        for document in rendered:
            assert validate(document) == "", document["metadata"]["name"]
        policy = next(d for d in rendered if d["kind"] == "NetworkPolicy")["spec"]
        assert len(policy["ingress"]) == {"base": 2, "example": 3}[folder]
