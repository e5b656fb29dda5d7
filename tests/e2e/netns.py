# SPDX-License-Identifier: Apache-2.0
"""Networks of gateways in Linux network namespaces: a node is a namespace, a link of the topology a
cable between two, with an address at each end. Gateways have an address that does not hang on a
cable, and reach each other by it over as many nodes as stand in between, each of which forwards.

SAEs ask from inside the namespace of their node. Only root can make all this."""

import atexit
import ctypes
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from network import LOOPBACK, Network

CLONE_NEWNET = 0x40000000
WIRE = Path(__file__).with_name("wire.py")
HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'
_libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments, batch=None):
    """The command ip; with `batch` its input."""
    command = ["ip", *(["-batch", "-"] if batch is not None else []), *arguments]
    done = subprocess.run(command, input=batch, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def why_not():
    """Why namespaces cannot be made here, or None."""
    if os.geteuid():
        return "only root can make them"
    missing = [tool for tool in ("ip", "nsenter", "unshare", "mount") if not shutil.which(tool)]
    if missing:
        return f"no {', '.join(missing)} here (Debian packages iproute2, util-linux, mount)"
    name = f"qg{os.getpid()}-probe"
    try:
        ip("netns", "add", name)
        try:
            ip("link", "add", "one", "netns", name, "type", "veth", "peer", "name", "two", "netns", name)
            subprocess.run([*_enter(name, "/dev/null"), "true"], check=True, capture_output=True, timeout=60)
        finally:
            ip("netns", "del", name)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def has_netem():
    """Whether this kernel and tc can delay and lose packets on an interface."""
    if not shutil.which("tc"):
        return False
    name = f"qg{os.getpid()}-netem"
    ip("netns", "add", name)
    try:
        done = subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"],
                              capture_output=True, timeout=60)
        return done.returncode == 0
    finally:
        ip("netns", "del", name)


def has_tap():
    return os.access("/dev/net/tun", os.R_OK | os.W_OK)


def _enter(namespace, hosts):
    """What stands before a command line for it to run in a namespace, with a hosts file of its own."""
    return ["nsenter", f"--net=/run/netns/{namespace}", "unshare", "--mount", "sh", "-c", HOSTS, str(hosts)]


@contextmanager
def inside(namespace):
    """The calling thread is in the namespace meanwhile."""
    with open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as home, \
            open(f"/run/netns/{namespace}") as there:
        _set_namespace(there)
        try:
            yield
        finally:
            _set_namespace(home)


def _set_namespace(file):
    if _libc.setns(file.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def remove_leftovers():
    """Those of runs that were killed."""
    for name in (n.split()[0] for n in ip("netns", "list").splitlines()):
        pid = name.removeprefix("qg").partition("-")[0]
        if name.startswith("qg") and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            try:
                ip("netns", "del", name)
            except OSError:
                if name in ip("netns", "list").split():  # else its run has ended just now
                    raise


@dataclass
class Cable:
    a: str  # nodes
    b: str
    addresses: tuple
    up: bool = True
    wire: subprocess.Popen = field(default=None, repr=False)

    def interface(self, node):
        return f"to-{(self.b if node == self.a else self.a).removeprefix('kme-')}"


class Space:
    """The namespaces and cables of a topology. `delay_ms` and `loss_percent` hold for every cable and
    each of its directions."""

    def __init__(self, topology, delay_ms=0, loss_percent=0, seed=0):
        self._run = f"qg{os.getpid()}-{secrets.token_hex(2)}"
        self._delay_ms, self._loss_percent, self._seed = delay_ms, loss_percent, seed
        self.nodes = [n.name for n in topology.nodes]
        self.address = {name: f"10.1.0.{i + 1}" for i, name in enumerate(self.nodes)}
        self.cables = [Cable(link.a, link.b, (f"10.2.{k}.1", f"10.2.{k}.2"))
                       for k, link in enumerate(topology.links)]
        self._made = []
        atexit.register(self.remove)
        try:
            self._make()
        except BaseException:
            self.remove()
            raise

    def name(self, node):
        return f"{self._run}-{node.removeprefix('kme-')}"

    def _make(self):
        for node in self.nodes:
            ip("netns", "add", self.name(node))
            self._made.append(self.name(node))
            ip("-n", self.name(node), batch=f"link set lo up\naddr add {self.address[node]}/32 dev lo\n")
            with inside(self.name(node)):
                self._sysctl("ip_forward", 1)
                for which in ("all", "default"):
                    self._sysctl(f"conf/{which}/rp_filter", 0)
        for k, cable in enumerate(self.cables):
            self._lay(k, cable)
        self.reroute()

    @staticmethod
    def _sysctl(name, value):
        # A file of /proc/sys/net shows the namespace of the thread that opens it.
        Path(f"/proc/sys/net/ipv4/{name}").write_text(f"{value}\n")

    def _lay(self, k, cable):
        shaped = self._delay_ms or self._loss_percent
        netem = shaped and has_netem()
        if shaped and not netem:
            self._lay_wire(k, cable)
        else:
            ip("link", "add", cable.interface(cable.a), "netns", self.name(cable.a), "type", "veth",
               "peer", "name", cable.interface(cable.b), "netns", self.name(cable.b))
        for node, address in zip((cable.a, cable.b), cable.addresses):
            interface = cable.interface(node)
            ip("-n", self.name(node), batch=f"addr add {address}/30 dev {interface}\nlink set {interface} up\n")
            if netem:
                subprocess.run(["tc", "-n", self.name(node), "qdisc", "add", "dev", interface, "root", "netem",
                                "delay", f"{self._delay_ms}ms", "loss", f"{self._loss_percent}%"],
                               check=True, timeout=60)

    def _lay_wire(self, k, cable):
        taps = [f"{self._run.replace('-', '')[-10:]}{k}{end}" for end in "ab"]
        cable.wire = subprocess.Popen([sys.executable, WIRE, *taps, str(self._delay_ms),
                                       str(self._loss_percent), str(self._seed + k)],
                                      stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if cable.wire.stdout.readline() != b"ready\n":
            raise OSError("wire.py made no interfaces")
        for tap, node in zip(taps, (cable.a, cable.b)):
            ip("link", "set", tap, "netns", self.name(node), "name", cable.interface(node))

    # --- while it runs -----------------------------------------------------------------------

    def cable(self, a, b):
        return next(c for c in self.cables if {a, b} == {c.a, c.b})

    def cut(self, a, b, reroute=True):
        """Link down, at both ends; then routes are found anew, as routers would."""
        self._set(a, b, False, reroute)

    def heal(self, a, b):
        self._set(a, b, True, True)

    def _set(self, a, b, up, reroute):
        cable = self.cable(a, b)
        cable.up = up
        for node in (a, b):
            ip("-n", self.name(node), "link", "set", cable.interface(node), "up" if up else "down")
        if reroute:
            self.reroute()

    def reroute(self):
        """Shortest paths over the cables that are up, at every node to every other."""
        for node in self.nodes:
            hops = self._first_hops(node)
            lines = ["route flush proto static"]
            for target, (gateway, interface) in hops.items():
                lines.append(f"route replace {self.address[target]}/32 via {gateway} dev {interface} "
                             f"src {self.address[node]} proto static")
            ip("-n", self.name(node), batch="\n".join(lines) + "\n")

    def _first_hops(self, start):
        """{node: (address of the first hop towards it, own interface)}"""
        found, queue = {start: None}, deque([start])
        while queue:
            node = queue.popleft()
            for cable in (c for c in self.cables if c.up and node in (c.a, c.b)):
                other, address = ((cable.b, cable.addresses[1]) if node == cable.a
                                  else (cable.a, cable.addresses[0]))
                if other not in found:
                    found[other] = found[node] or (address, cable.interface(start))
                    queue.append(other)
        del found[start]
        return found

    def remove(self):
        for cable in self.cables:
            if cable.wire is not None:
                cable.wire.kill()
                cable.wire.wait()
                cable.wire.stdout.close()
                cable.wire = None
        while self._made:
            try:
                ip("netns", "del", self._made[-1])
            finally:
                self._made.pop()
        atexit.unregister(self.remove)


class SpacedNetwork(Network):
    """A network whose nodes are namespaces; `cables` are options of Space."""

    def __init__(self, topology, folder, cables=None, **options):
        self.space = Space(topology, **(cables or {}))
        self._hosts = Path(folder) / "hosts"
        urls = {(node.name, other.id): f"https://{other.name}.demo:8444"
                for node in topology.nodes for other in topology.neighbours_of(node.name)}
        try:
            super().__init__(topology, folder, neighbour_urls=urls, **options)
            self._hosts.write_text("127.0.0.1 localhost\n" + "".join(
                f"{address} {node}.demo\n" for node, address in self.space.address.items()))
        except BaseException:
            self.space.remove()
            raise

    def _place(self, ports, sources):
        endpoints = {}
        for node in self.topology.nodes:
            endpoints[f"{node.name}/sae"] = (LOOPBACK, 8443)
            endpoints[f"{node.name}/kms"] = (self.space.address[node.name], 8444)
            endpoints[f"{node.name}/app"] = (LOOPBACK, 8445)
        for k, link in enumerate(self.topology.links):
            endpoints[link.sim_a] = endpoints[link.sim_b] = (LOOPBACK, 9000 + k)
            endpoints[f"{link.sim_a}/link"] = (self.space.cables[k].addresses[0], 7000 + k)
        return endpoints

    def at(self, node_name):
        return _enter(self.space.name(node_name), self._hosts)

    def connector(self, node_name):
        def connect(*arguments, **options):
            with inside(self.space.name(node_name)):
                return socket.create_connection(*arguments, **options)
        return connect

    def stop(self):
        try:
            return super().stop()
        finally:
            self.space.remove()
