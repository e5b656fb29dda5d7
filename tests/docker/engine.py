# SPDX-License-Identifier: Apache-2.0
"""The container engine and networks of docker/*.yaml, as the tests drive them."""

import io
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOCKER = PROJECT / "docker"
TAG = os.environ.get("QKDGATE_TAG", "test")
USER = 65532
PLACEHOLDERS = (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf")  # the engine puts them in


def run(*command, check=True, **options):
    """The finished command with its output as text; an error shows what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=400, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: status {done.returncode}\n"
                             f"{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done


def docker(*words, check=True, **options):
    return run("docker", *words, check=check, **options)


def compose_command():
    return ["docker", "compose"] if docker("compose", "version", check=False).returncode == 0 else ["docker-compose"]


def inspect(name):
    return json.loads(docker("inspect", name).stdout)[0]


def wait_for(what, probe, timeout_s=120, interval_s=0.1):
    end = time.monotonic() + timeout_s
    while not (result := probe()):
        assert time.monotonic() < end, f"{what}: not within {timeout_s} s"
        time.sleep(interval_s)
    return result


def files_of(image):
    """{path: (tar entry, bytes)} of all files of an image as a container has them."""
    container = docker("create", image).stdout.strip()
    try:
        archive = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        docker("rm", container)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: (m, tar.extractfile(m).read() if m.isreg() else b"") for m in tar
                if m.name not in PLACEHOLDERS and not m.name.startswith("dev/")}


class Network:
    """One of the networks under docker/, as a project of its own."""

    def __init__(self, name, *files):
        self.name = f"qkdgate-test-{name}"
        self.files = [DOCKER / f for f in files]
        self._compose = compose_command()

    def compose(self, *words, check=True, more=()):
        files = [word for f in (*self.files, *more) for word in ("-f", f)]
        return run(*self._compose, "-p", self.name, *files, *words, check=check,
                   env={**os.environ, "QKDGATE_TAG": TAG})

    def up(self, *words, more=()):
        self.compose("up", "-d", *words, more=more)

    def down(self):
        self.compose("down", "-v", "--remove-orphans", "-t", "20")

    def container(self, service):
        """Its ID, whatever this version of Compose calls it."""
        return docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={self.name}",
                      "--filter", f"label=com.docker.compose.service={service}",
                      "--filter", "label=com.docker.compose.oneoff=False").stdout.split()[0]

    def services(self):
        return self.compose("config", "--services").stdout.split()

    def inspect(self, service):
        return inspect(self.container(service))

    def log(self, service):
        done = docker("logs", self.container(service))
        return done.stdout + done.stderr

    def wait_log(self, service, text, count=1):
        return wait_for(f"{service} to log {text}", lambda: self.log(service).count(text) >= count)

    def prove(self):
        """The client of the network fetches a key for every pair: what it says, or an error."""
        return self.compose("run", "--rm", "client").stdout

    def tool(self, *words, network="sae", volumes=(), image="qkdgate-sim", check=True):
        """Runs a command of an image inside the network: confined as its containers are."""
        return docker(*self.tool_words(network, volumes), f"{image}:{TAG}", *words, check=check)

    def tool_words(self, network="sae", volumes=(), entrypoint="python3"):
        mounts = [word for v in volumes for word in ("-v", v if v.startswith("/") else f"{self.name}_{v}")]
        return ["run", "--rm", "-i", "--read-only", "--cap-drop", "ALL", "--network",
                "none" if network is None else f"{self.name}_{network}", "--entrypoint", entrypoint, *mounts]
