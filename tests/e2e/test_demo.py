# SPDX-License-Identifier: Apache-2.0
"""The demo contract that scripts rely on, in a build folder of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from client import Client
from network import PROJECT, build_folder

DEMO = PROJECT / "tests" / "demo" / "demo.py"
PROCESSES = {"kme-a", "kme-b", "sim-a", "sim-b"}
SAES = ("ALICE", "DAVE", "BOB", "MALLORY", "ERIN")


@pytest.fixture(scope="module")
def build(e2e_folder):
    """A build folder that borrows the binaries, so that a demo that runs is left alone."""
    folder = e2e_folder / "demo-build"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "bin").symlink_to(build_folder() / "bin")
    yield folder
    demo(folder, "down")


def demo(build, *arguments, topology=""):
    return subprocess.run([sys.executable, DEMO, *arguments], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "QKDGATE_BUILD": str(build), "TOPOLOGY": topology})


def environment(build):
    lines = (build / "demo" / "env").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Z0-9_]+=[^\s'\"$]+", line) for line in lines)
    return dict(line.split("=", 1) for line in lines)


def pids(build):
    return {p.stem: int(p.read_text()) for p in (build / "demo" / "run").glob("*.pid")}


def test_the_demo_contract(build):
    first = demo(build, "up")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count("$ curl ") == 2 and first.stdout.count('"key_ID"') == 2
    assert "make demo-down" in first.stdout
    env = environment(build)
    assert {"CA", "KME_A_URL", "KME_B_URL"} <= set(env)
    assert {"KME_A_ADMIN_URL", "KME_A_ADMIN_SOCKET", "ADMIN_CERT", "ADMIN_KEY", "ADMIN_PASSWORD"} <= set(env)
    for sae in SAES:
        assert Path(env[f"{sae}_CERT"]).is_absolute() and Path(env[f"{sae}_KEY"]).is_file()
    assert not env["KME_A_URL"].endswith("/") and env["KME_A_URL"].startswith("https://")
    running = pids(build)
    assert set(running) == PROCESSES
    for name, pid in running.items():
        program = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
        assert program.endswith(b"qkdgate" if name.startswith("kme") else b"qkdgate-sim")
    works(env)

    os.kill(running["kme-b"], signal.SIGKILL)
    (key_id, key), = alice(env).enc("sae-bob").keys()
    again = demo(build, "restart", "kme-b")
    assert again.returncode == 0, again.stderr
    assert pids(build)["kme-b"] != running["kme-b"]
    assert bob(env).get_dec("sae-alice", key_id).keys() == [(key_id, key)]  # on its old state

    second = demo(build, "up")
    assert second.returncode == 0, second.stdout + second.stderr
    assert not {p for p in running.values()} & set(pids(build).values())
    works(environment(build))

    assert demo(build, "down").returncode == 0
    assert pids(build) == {}
    assert demo(build, "down").returncode == 0


def client(env, sae, url):
    return Client(env[url], env["CA"], env[f"{sae}_CERT"], env[f"{sae}_KEY"])


def alice(env):
    return client(env, "ALICE", "KME_A_URL")


def bob(env):
    return client(env, "BOB", "KME_B_URL")


def works(env):
    """The policy of the contract: alice, bob, dave and erin with one another, mallory with nobody."""
    for sae, url, peer in (("ALICE", "KME_A_URL", "bob"), ("DAVE", "KME_A_URL", "erin"),
                           ("BOB", "KME_B_URL", "dave"), ("ERIN", "KME_B_URL", "alice"),
                           ("ERIN", "KME_B_URL", "bob")):
        assert client(env, sae, url).enc(f"sae-{peer}").status == 200, (sae, peer)
    assert client(env, "MALLORY", "KME_B_URL").enc("sae-alice").status == 401
    assert alice(env).enc("sae-mallory").status == 401


def test_the_demo_of_a_chain(build):
    """A key from alice to carol over kme-b, the next over kme-d; then all runs, as a user finds it."""
    shown = demo(build, "up", topology="chain")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("$ curl ") == 4 and shown.stdout.count("hold the same key") == 2
    ways = re.findall(r"KME-A - (KME-[BD]) - KME-C", shown.stdout)
    assert ways == ["KME-B", "KME-D"]
    assert len(shown.stdout.splitlines()) < 60, shown.stdout
    env = environment(build)
    assert {"CA", "KME_A_URL", "KME_B_URL", "KME_C_URL", "KME_D_URL"} <= set(env)
    assert {f"{sae}_{kind}" for sae in ("ALICE", "BOB", "CAROL") for kind in ("CERT", "KEY")} <= set(env)
    running = pids(build)
    assert {"kme-a", "kme-b", "kme-c", "kme-d"} < set(running)
    assert all(Path(f"/proc/{pid}").exists() for pid in running.values())
    with client(env, "ALICE", "KME_A_URL") as alice, client(env, "CAROL", "KME_C_URL") as carol, \
            client(env, "BOB", "KME_B_URL") as bob:
        for slave, sae in ((carol, "carol"), (bob, "bob")):
            keys = alice.enc(f"sae-{sae}").keys()
            assert slave.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
        keys = carol.enc("sae-alice").keys()
        assert alice.dec("sae-carol", *(i for i, _ in keys)).keys() == keys

    os.kill(running["kme-c"], signal.SIGKILL)
    assert demo(build, "restart", "kme-c").returncode == 0
    assert pids(build)["kme-c"] != running["kme-c"]
    assert demo(build, "up").returncode == 0  # the other topology stops this one
    assert set(pids(build)) == PROCESSES and not set(pids(build).values()) & set(running.values())
    assert demo(build, "down").returncode == 0


def test_wrong_arguments_of_the_demo(build):
    assert demo(build, "up", topology="star").returncode == 2
    for arguments in ((), ("sideways",), ("restart",), ("restart", "")):
        assert demo(build, *arguments).returncode == 2
    assert demo(build, "restart", "kme-x").returncode == 2


def test_the_session_of_the_readme_works_when_pasted(build):
    """Runs the shell block of README.md against the demo."""
    assert demo(build, "up").returncode == 0
    text = (PROJECT / "README.md").read_text()
    blocks = [b for b in re.findall(r"```sh\n(.*?)```", text, re.S) if "curl" in b]
    assert blocks
    script = "\n".join(blocks).replace("build/demo/env", str(build / "demo" / "env"))
    done = subprocess.run(["sh", "-eu", "-c", script], capture_output=True, text=True, timeout=300, cwd=PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr
    keys = re.findall(r'"key"\s*:\s*"([^"]+)"', done.stdout)
    assert len(keys) >= 2 and keys[0] == keys[1], done.stdout
