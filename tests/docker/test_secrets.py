# SPDX-License-Identifier: Apache-2.0
"""Secrets as engines mount them, variables that are not set, and a state kept over an upgrade."""

import json
import re

import pytest

from engine import PROJECT, TAG, docker

PAIRS = ("alice@kme-a:bob@kme-b", "bob@kme-b:alice@kme-a")
TOOL_VOLUMES = ("sae-secrets:/run/secrets:ro", f"{PROJECT / 'tests'}:/tests:ro")
CONFIG = "/etc/qkdgate/qkdgate.yaml"


@pytest.fixture(scope="module")
def pair(start):
    return start("pair")


def check_config(pair, *words, secrets="kme-a-secrets"):
    """check-config in a container that differs from kme-a's only as told: (status, what it says)."""
    about = pair.inspect("kme-a")
    variables = [w for v in about["Config"]["Env"] if not v.startswith("PATH=") for w in ("-e", v)]
    done = docker("run", "--rm", "--cap-drop", "ALL", "--network", "none", *variables,
                  "-v", f"{PROJECT}/docker/pair/qkdgate.yaml:{CONFIG}:ro", "-v", f"{pair.name}_{secrets}:/run/secrets:ro",
                  *words, f"qkdgate:{TAG}", "check-config", CONFIG, check=False)
    return done.returncode, done.stdout + done.stderr


def change(pair, script, user="0:0"):
    """Runs a shell script as root where the secrets of kme-a can be written."""
    docker("run", "--rm", "--network", "none", "--user", user, "--entrypoint", "sh",
           "-v", f"{pair.name}_kme-a-secrets:/run/secrets", f"qkdgate-sim:{TAG}", "-euc", script)


def test_as_it_is_all_is_well(pair):
    assert check_config(pair) == (0, f"{CONFIG}: ok\n")


def test_a_variable_that_is_not_set(pair):
    line = next(n for n, text in enumerate((PROJECT / "docker/pair/qkdgate.yaml").read_text().splitlines(), 1)
                if "${EAST_ADDRESS}" in text)
    about = pair.inspect("kme-a")
    variables = [w for v in about["Config"]["Env"] if not v.startswith(("PATH=", "EAST_ADDRESS=")) for w in ("-e", v)]
    done = docker("run", "--rm", "--network", "none", *variables, "-v",
                  f"{PROJECT}/docker/pair/qkdgate.yaml:{CONFIG}:ro", f"qkdgate:{TAG}", "run", CONFIG, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{CONFIG}:{line}: kms_listener.listen: variable EAST_ADDRESS is not set: set it, or give "
        "${EAST_ADDRESS:-DEFAULT}"]


@pytest.mark.parametrize("mode, owner, group, good", [
    ("0400", "65532", "65532", True),   # written for the container's user
    ("0440", "0", "65532", True),       # Kubernetes with fsGroup
    ("0440", "0", "4711", False),
    ("0444", "0", "0", False),          # Swarm and Podman unless told otherwise
    ("0460", "0", "65532", False),
    ("0400", "4711", "65532", False),
])
@pytest.mark.parametrize("name", ["master.key", "kme.key"])
def test_modes_of_mounted_secrets(pair, name, mode, owner, group, good):
    change(pair, f"chown {owner}:{group} /run/secrets/{name}; chmod {mode} /run/secrets/{name}")
    status, said = check_config(pair)
    change(pair, f"chown 65532:65532 /run/secrets/{name}; chmod 0400 /run/secrets/{name}")
    if good:
        assert (status, said) == (0, f"{CONFIG}: ok\n")
    else:
        assert status == 1
        assert all(re.match(rf"{CONFIG}:\d+: (store\.master_key|kms_listener|streams\[\d\]\.source): .*{name}", line)
                   for line in said.splitlines()), said


def test_the_same_mode_elsewhere_is_refused(pair):
    """0440 counts below /run/secrets only."""
    change(pair, "chown 0:65532 /run/secrets/master.key; chmod 0440 /run/secrets/master.key")
    text = (PROJECT / "docker/pair/qkdgate.yaml").read_text().replace("secret:master.key", "/keys/master.key")
    folder = PROJECT / "build" / "docker"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "elsewhere.yaml").write_text(text)
    about = pair.inspect("kme-a")
    variables = [w for v in about["Config"]["Env"] if not v.startswith("PATH=") for w in ("-e", v)]
    done = docker("run", "--rm", "--network", "none", *variables, "-v", f"{folder}/elsewhere.yaml:{CONFIG}:ro",
                  "-v", f"{pair.name}_kme-a-secrets:/run/secrets:ro", "-v", f"{pair.name}_kme-a-secrets:/keys:ro",
                  f"qkdgate:{TAG}", "check-config", CONFIG, check=False)
    change(pair, "chown 65532:65532 /run/secrets/master.key; chmod 0400 /run/secrets/master.key")
    assert done.returncode == 1 and "store.master_key: \"/keys/master.key\" must be" in done.stderr


# --- upgrade ------------------------------------------------------------------------------------


def plain_config(pair, service, folder):
    """What that gateway reads, as version 0.2.0 can read it too: without variables and what is new."""
    text = (PROJECT / "docker/pair/qkdgate.yaml").read_text().replace("secret:", "/run/secrets/")
    text = re.sub(r"^admin:\n( .*\n)+", "", text, flags=re.M)
    values = dict(v.split("=", 1) for v in pair.inspect(service)["Config"]["Env"])
    text = re.sub(r"\$\{(\w+)(?::-(\w+))?\}", lambda m: values.get(m[1], m[2]), text)
    (folder / f"{service}.yaml").write_text(text)
    return folder / f"{service}.yaml"


def test_upgrade_of_a_node_with_its_volumes(pair, earlier_image, passing, tmp_path):
    config = plain_config(pair, "kme-b", tmp_path)
    (tmp_path / "earlier.yaml").write_text(json.dumps({"services": {"kme-b": {
        "image": earlier_image, "volumes": [f"{config}:{CONFIG}:ro"]}}}))
    pair.down()
    pair.up(more=[tmp_path / "earlier.yaml"])
    assert pair.inspect("kme-b")["Config"]["Image"] == earlier_image
    pair.prove()
    issued = pair.tool("/tests/docker/pass_keys.py", "issue", *PAIRS, volumes=TOOL_VOLUMES).stdout
    load = passing(pair, *PAIRS)
    volumes = {m["Name"] for m in pair.inspect("kme-b")["Mounts"] if m["Type"] == "volume"}
    pair.compose("up", "-d", "--no-deps", "kme-b")
    about = pair.inspect("kme-b")
    assert about["Config"]["Image"] == f"qkdgate:{TAG}" and volumes == {
        m["Name"] for m in about["Mounts"] if m["Type"] == "volume"}
    pair.wait_log("kme-b", "event=ready")
    fetched = docker(*pair.tool_words(volumes=TOOL_VOLUMES), f"qkdgate-sim:{TAG}", "/tests/docker/pass_keys.py", "fetch",
                     *PAIRS, input=issued).stdout
    assert json.loads(fetched) == {p.replace("@kme-a", "").replace("@kme-b", ""): True for p in PAIRS}
    pair.prove()
    assert load.end()["delivered"] > 50
