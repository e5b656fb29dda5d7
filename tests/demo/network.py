# SPDX-License-Identifier: Apache-2.0
"""A network of gateways and simulated links in one folder: made, started, asked, stopped.

The demo and the end-to-end tests use it alike. Binaries come from $QKDGATE_BUILD/bin (default
build/bin below the project), everything else lives in the folder given.
"""

import fcntl
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from client import Client
from processes import Process, ProcessFailed, wait_for
from topology import node_config, sim_arguments, to_yaml

PROJECT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
SOCKET_NAME_MAX = 107


def build_folder():
    return (PROJECT / os.environ.get("QKDGATE_BUILD", "build")).resolve()


def binary(name):
    path = build_folder() / "bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run make first")
    return path


def under():
    """What stands before every gateway's command line: $QKDGATE_UNDER, as valgrind with its options. What
    runs so does without its filter of system calls."""
    return shlex.split(os.environ.get("QKDGATE_UNDER", ""))


def make_pki(folder, *names):
    """The demo authority and its certificates in `folder`; adds what is missing."""
    subprocess.run([PROJECT / "certs" / "make-pki", folder, *names], check=True)


def complete_pki(folder, topology):
    """Makes what a network needs and the folder lacks."""
    missing = [name for name in topology.certificates() if not (folder / f"{name}.pem").exists()]
    if missing or not (folder / "ca.pem").exists():
        make_pki(folder, *missing)


class Ports:
    """Ports below the range from which the kernel takes those of outgoing connections, so that
    a gateway finds its own again after a restart."""

    LOWEST, HIGHEST = 20000, 31999
    _given = set()
    _shared = None

    def __init__(self, first=None):
        self._wanted = first

    @classmethod
    def _mine(cls, port):
        """Whether no other process that makes networks has taken it. A lock on a byte of a file that
        all share says so, until this one ends: gateways are not always listening."""
        if cls._shared is None:
            name = Path(tempfile.gettempdir()) / f"qkdgate-ports-{os.getuid()}"
            cls._shared = open(name, "a")
        try:
            fcntl.lockf(cls._shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            return False
        return True

    @staticmethod
    def _free(port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
        return True

    def take(self):
        """A free port: the next of the wanted row, else any."""
        if self._wanted is not None:
            port, self._wanted = self._wanted, self._wanted + 1
            if self._mine(port) and self._free(port):
                return port
        while True:
            port = random.randint(self.LOWEST, self.HIGHEST)
            if port not in self._given and self._mine(port) and self._free(port):
                self._given.add(port)
                return port


class Network:
    """`tweak(node name, configuration)` may change each configuration before it is written;
    `sources` gives the (host, port) of links that are not simulated, by simulator name;
    `admin` gives every gateway an admin interface;
    `neighbour_urls` {(node, neighbour's KME ID): URL} puts something between two gateways."""

    def __init__(self, topology, folder, pki=None, first_port=None, tweak=None, sources=None,
                 neighbour_urls=None, admin=False):
        self.topology = topology
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pki = self.folder / "pki"
        if pki and not self.pki.exists():
            shutil.copytree(pki, self.pki)
        self._tweak = tweak
        self._neighbour_urls = neighbour_urls or {}
        self._border_urls = {}
        self._admin = admin
        self._outside = []
        self.endpoints = self._place(Ports(first_port), sources or {})
        self.gateways = {n.name: self._gateway(n.name) for n in topology.nodes}
        self.sims = {name: process for link in topology.links if link.simulated
                     for name, process in self._simulators(link)}
        self._clients = []
        self._out = set()

    def forget(self):
        """Removes what had to stand outside its folder. It is not started again."""
        for folder in self._outside:
            shutil.rmtree(folder, ignore_errors=True)
        self._outside.clear()

    # --- where everything is ---------------------------------------------------------------

    def _place(self, ports, sources):
        endpoints = {}
        for node in self.topology.nodes:
            endpoints[f"{node.name}/sae"] = (LOOPBACK, ports.take())
            endpoints[f"{node.name}/kms"] = (LOOPBACK, ports.take())
            if self.topology.peerings_of(node.name):
                endpoints[f"{node.name}/kxi"] = (LOOPBACK, ports.take())
        for peering in self.topology.peerings:
            if peering.guest:
                endpoints[peering.guest] = (LOOPBACK, ports.take())
        for link in self.topology.links:
            for sim in (link.sim_a, link.sim_b):
                endpoints[sim] = sources[sim] if sim in sources else (LOOPBACK, ports.take())
            endpoints[f"{link.sim_a}/link"] = (LOOPBACK, ports.take())
        for node in self.topology.nodes:
            endpoints[f"{node.name}/app"] = (LOOPBACK, ports.take())
            if self.topology.is_pushed_to(node.name):
                endpoints[f"{node.name}/push"] = (LOOPBACK, ports.take())
        for node in self.topology.nodes if self._admin else ():
            endpoints[f"{node.name}/admin"] = (LOOPBACK, ports.take())
            endpoints[f"{node.name}/scrape"] = (LOOPBACK, ports.take())
            endpoints[f"{node.name}/admin.sock"] = str(self._socket(node.name))
        return endpoints

    def _socket(self, node_name):
        """In the node's folder, but for those of tests with long names: a Unix socket's name is short."""
        path = self.folder / node_name / "admin.sock"
        if len(str(path)) > SOCKET_NAME_MAX:
            self._outside.append(Path(tempfile.mkdtemp(prefix="qg-")))
            path = self._outside[-1] / f"{node_name}.sock"
        return path

    def admin_socket(self, node_name):
        return Path(self.endpoints[f"{node_name}/admin.sock"])

    def admin_url(self, node_name, listener="admin"):
        host, port = self.endpoints[f"{node_name}/{listener}"]
        return f"{'https' if listener == 'admin' else 'http'}://{host}:{port}"

    def config_file(self, node_name):
        return self.folder / f"{node_name}.yaml"

    def _gateway(self, name):
        return Process(self.folder, name,
                       [*self.at(name), *under(), binary("qkdgate"), "run", self.config_file(name)])

    def _simulators(self, link):
        for which, name, node in (("a", link.sim_a, link.a), ("b", link.sim_b, link.b)):
            arguments = sim_arguments(link, which, self.endpoints, self.pki)
            yield name, Process(self.folder, name, [*self.at(node), binary("qkdgate-sim"), *arguments])

    def at(self, node_name):
        """What stands before a command line for it to run at that node: here all run on one host."""
        return []

    def connector(self, node_name):
        """How a client reaches that node: None for the usual way."""
        return None

    def processes(self):
        return [*self.sims.values(), *self.gateways.values()]

    def url(self, node_name, listener="sae"):
        """Of a listener of a node, or of a guest with listener None."""
        host, port = self.endpoints[f"{node_name}/{listener}" if listener else node_name]
        return f"https://{host}:{port}"

    # --- files -------------------------------------------------------------------------------

    def write_config(self, node_name, tweak=None):
        """Writes one node's configuration; `tweak(configuration)` changes this writing alone."""
        config = node_config(self.topology, self.topology.node(node_name), self.endpoints)
        for neighbour in config["neighbours"]:
            neighbour["url"] = self._neighbour_urls.get((node_name, neighbour["id"]),
                                                        neighbour["url"])
        for border, url in self._border_urls.items():
            there = "https://%s:%d/" % self.endpoints[f"{border}/kxi"]
            for peer in config.get("peers", ()):
                peer.update({k: f"{v}/".replace(there, f"{url}/").rstrip("/") for k, v in peer.items() if k.endswith("url")})
        if under():
            config["process"] = {"sandbox": False}
        if self._tweak:
            self._tweak(node_name, config)
        if tweak:
            tweak(config)
        self.config_file(node_name).write_text(to_yaml(config) + "\n")

    def put_between(self, node_name, neighbour_name, url):
        """From its next start the gateway calls that neighbour at `url`."""
        self._neighbour_urls[(node_name, self.topology.node(neighbour_name).id)] = url
        self.write_config(node_name)

    def put_before(self, border_name, url):
        """From their next start other networks reach that border at `url`."""
        self._border_urls[border_name] = url
        for peering in self.topology.peerings_of(border_name):
            self.write_config(peering.a)
            self.write_config(peering.b)

    def prepare(self):
        """PKI, master keys, folders, configurations."""
        complete_pki(self.pki, self.topology)
        for node in self.topology.nodes:
            for part in (node.name, f"{node.name}-anchor"):
                (self.folder / part).mkdir(mode=0o700, exist_ok=True)
            master = self.folder / f"{node.name}.master"
            if not master.exists():
                subprocess.run([binary("qkdgate"), "make-master-key", master], check=True,
                               stdout=subprocess.DEVNULL)
            self.write_config(node.name)

    # --- running -----------------------------------------------------------------------------

    def start(self):
        """Starts everything and waits until every process says it is ready."""
        for process in self.processes():
            process.start()
        for process in self.processes():
            process.wait_ready()

    def stop(self):
        """Stops the gateways, which close their streams, before the links."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        running = [p for p in self.gateways.values() if p.pid is not None]
        orderly = {p.name: p.stop() for p in running}
        for sim in self.sims.values():
            sim.stop()
        return orderly

    def restart(self, node_name):
        gateway = self.gateways[node_name]
        gateway.start()
        gateway.wait_ready()

    def outage(self, on):
        """The links give no key while on; their streams stay open."""
        for sim, process in self.sims.items():
            if (sim in self._out) != on:
                process.signal(signal.SIGUSR2)
        self._out = set(self.sims) if on else set()

    # --- asking ------------------------------------------------------------------------------

    def client(self, sae, at=None, certificate=None, timeout_s=60):
        """A new client with the SAE's certificate, at its home node or at another."""
        node = at or self.topology.home(sae).name
        name = certificate or sae
        client = Client(self.url(node), self.pki / "ca.pem", self.pki / f"{name}.pem",
                        self.pki / f"{name}.key", timeout_s, self.connector(node))
        self._clients.append(client)
        return client

    def stock(self, master, slave):
        """Keys that the master's gateway holds towards the slave's."""
        with self.client(master) as client:
            answer = client.status(f"sae-{slave}")
        if answer.status != 200:
            raise ProcessFailed(f"status of sae-{slave} for sae-{master}: {answer.status} {answer.body!r}")
        return answer.json["stored_key_count"]

    def wait_stock(self, master, slave, at_least=1, timeout_s=30):
        return wait_for(f"{at_least} keys from {master} to {slave}",
                        lambda: (n := self.stock(master, slave)) >= at_least and n, timeout_s, 0.05)

    def wait_foreign(self, master, slave, timeout_s=30):
        """Until keys reach an SAE of another network: takes one at both ends."""
        with self.client(master) as one, self.client(slave) as other:
            def ask():
                answer = one.enc(f"sae-{slave}")
                return answer.keys()[0] if answer.status == 200 else None
            key_id, key = wait_for(f"a key from {master} to {slave}", ask, timeout_s, 0.2)
            got = other.dec(f"sae-{master}", key_id).keys()
            if got != [(key_id, key)]:
                raise ProcessFailed(f"{master} and {slave} hold different keys ({key_id})")

    # --- for scripts: every process with its command line --------------------------------------

    def save(self):
        what = {p.name: p.arguments for p in self.processes()}
        (self.folder / "processes.json").write_text(json.dumps(what, indent=1) + "\n")


def saved_processes(folder):
    """The processes of a network that an earlier script started, links first."""
    try:
        what = json.loads((Path(folder) / "processes.json").read_text())
    except OSError:
        return {}
    return {name: Process(folder, name, arguments) for name, arguments in what.items()}


def complain(text):
    print(text, file=sys.stderr)
