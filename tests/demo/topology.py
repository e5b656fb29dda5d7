# SPDX-License-Identifier: Apache-2.0
"""What a network of gateways consists of, and the configuration that follows from it.

A topology names nodes, their SAEs, the links between the nodes and who may share keys with
whom. It knows no folder, no port and no process: those belong to network.py.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sae:
    """An application: its ID is sae-NAME, its certificate NAME.pem bears urn:sae:sae-NAME."""

    name: str

    @property
    def id(self):
        return f"sae-{self.name}"

    @property
    def certificate(self):
        return {"uri": f"urn:sae:{self.id}"}


@dataclass(frozen=True)
class Node:
    """A trusted node; NAME (kme-a) names its files, ID (KME-A) is its KME ID."""

    name: str
    saes: tuple = ()

    @property
    def id(self):
        return self.name.upper()


@dataclass(frozen=True)
class Link:
    """A QKD link between two nodes with its two simulators, or with outside sources.

    Each direction is a key stream of its own; its owner, the first node in its name, allocates.
    """

    a: str
    b: str
    sim_a: str = "sim-a"
    sim_b: str = "sim-b"
    dialect: str = "b"
    tls: bool = True
    client_certificate: bool = True
    rate_bps: int = 20_000_000
    latency_ms: int = 0
    chunk_size: int = 32
    segment_chunks: int = 256
    simulated: bool = True
    source: dict = field(default_factory=dict)

    def streams(self):
        """(name, owner, far end) of each stream of the link."""
        a, b = short(self.a), short(self.b)
        return ((f"{a}-to-{b}", self.a, self.b), (f"{b}-to-{a}", self.b, self.a))

    def sim(self, node):
        return self.sim_a if node == self.a else self.sim_b

    def other(self, node):
        return self.b if node == self.a else self.a


def short(node_name):
    return node_name.removeprefix("kme-")


@dataclass(frozen=True)
class Topology:
    name: str
    nodes: tuple
    links: tuple
    groups: tuple = ()  # each a tuple of SAE names that may share keys with one another

    def node(self, name):
        return next(n for n in self.nodes if n.name == name)

    def home(self, sae):
        """The node where an SAE (by name) lives."""
        return next(n for n in self.nodes if any(s.name == sae for s in n.saes))

    def saes(self):
        return [s for n in self.nodes for s in n.saes]

    def links_of(self, node_name):
        return [link for link in self.links if node_name in (link.a, link.b)]


def pair(**link_options):
    """Two gateways over one link: the demo and most tests."""
    return Topology(
        name="pair",
        nodes=(
            Node("kme-a", (Sae("alice"), Sae("dave"))),
            Node("kme-b", (Sae("bob"), Sae("mallory"), Sae("erin"))),
        ),
        links=(Link("kme-a", "kme-b", **link_options),),
        groups=(("alice", "bob", "dave", "erin"),),
    )


TOPOLOGIES = {"pair": pair}


def _policy(topology):
    rules = []
    for group in topology.groups:
        for i, master in enumerate(group[:-1]):
            rules.append({
                "master": f"sae-{master}",
                "slaves": [f"sae-{slave}" for slave in group[i + 1:]],
                "both_ways": True,
            })
    return rules


def _tls(name, **more):
    files = {"certificate": f"pki/{name}.pem", "key": f"pki/{name}.key", "ca": "pki/ca.pem"}
    return {**files, **more}


def _source(node, link, stream, endpoint):
    host, port = endpoint
    source = {"profile": f"bin-{link.dialect}", "address": f"{host}:{port}",
              "transport": "tls" if link.tls else "tcp"}
    if link.tls:
        source.update(_tls(node.name), server_name=f"{link.sim(node.name)}.demo")
    source.update(
        source_uri=f"client://{node.name}/{stream}",
        destination_uri=f"server://{link.other(node.name)}",
        max_bps=100_000_000, min_bps=0, jitter_bps=0, priority=0, timeout_ms=5000,
        ttl_s=3600, mimetype="application/json")
    source.update(link.source)
    return {k: v for k, v in source.items() if v is not None}


def _streams(topology, node, endpoints):
    streams = []
    for link in topology.links_of(node.name):
        for name, owner, _ in link.streams():
            streams.append({
                "name": name,
                "neighbour": topology.node(link.other(node.name)).id,
                "direction": "outbound" if owner == node.name else "inbound",
                "chunk_size": link.chunk_size,
                "segment_chunks": link.segment_chunks,
                "source": _source(node, link, name, endpoints[link.sim(node.name)]),
            })
    return streams


def node_config(topology, node, endpoints):
    """The configuration of one gateway as nested dicts and lists, paths relative to its folder.

    `endpoints` maps a process or listener name to (host, port): NODE/sae, NODE/kms, SIM.
    """
    def address(name):
        host, port = endpoints[name]
        return f"{host}:{port}"

    neighbours = [topology.node(link.other(node.name)) for link in topology.links_of(node.name)]
    return {
        "kme": {"id": node.id},
        "sae_listener": {"listen": address(f"{node.name}/sae"),
                         **_tls(node.name, crl="pki/crl.pem"), "min_version": "1.3"},
        "kms_listener": {"listen": address(f"{node.name}/kms"), **_tls(node.name)},
        "store": {"database": f"{node.name}/keys.db", "anchor": f"{node.name}-anchor/anchor",
                  "master_key": f"{node.name}.master", "key_ring": f"{node.name}-anchor/key-ring",
                  "flush_ms": 1000},
        "audit": {"file": f"{node.name}/audit.log"},
        "log": {"level": "info", "format": "text"},
        "saes": [{"id": s.id, "certificate": s.certificate} for s in node.saes],
        "directory": [{"sae": s.id, "kme": n.id}
                      for n in topology.nodes if n is not node for s in n.saes],
        "neighbours": [{"id": n.id, "url": f"https://{address(f'{n.name}/kms')}",
                        "certificate": {"dns": f"{n.name}.demo"}} for n in neighbours],
        "streams": _streams(topology, node, endpoints),
        "policy": _policy(topology),
        "pool": {"ready_chunks": 16384, "inbound_chunks": 262144},
    }


def sim_arguments(link, which, endpoints, pki):
    """The command line (without the program) of one end of a simulated link."""
    name = link.sim_a if which == "a" else link.sim_b
    host, port = endpoints[name]
    far_host, far_port = endpoints[f"{link.sim_a}/link"]
    role = "--link-listen" if which == "a" else "--link-connect"
    arguments = ["--listen", f"{host}:{port}", "--dialect", link.dialect,
                 role, f"{far_host}:{far_port}", "--rate-bps", str(link.rate_bps)]
    if link.latency_ms:
        arguments += ["--latency-ms", str(link.latency_ms)]
    if link.tls:
        arguments += ["--certificate", f"{pki}/{name}.pem", "--key", f"{pki}/{name}.key",
                      "--ca", f"{pki}/ca.pem"]
        if link.client_certificate:
            arguments.append("--require-client-certificate")
    return arguments


def to_yaml(value, indent=0):
    """Block-style YAML of dicts, lists and scalars, as a reader would write it by hand."""
    pad = "  " * indent
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines.append(f"{pad}{key}:\n{to_yaml(item, indent + 1)}")
            else:
                lines.append(f"{pad}{key}: {_scalar(item)}")
        return "\n".join(lines)
    lines = []
    for item in value:
        if isinstance(item, dict) and item:
            body = to_yaml(item, indent + 1)
            lines.append(f"{pad}- {body.lstrip()}")
        else:
            lines.append(f"{pad}- {_scalar(item)}")
    return "\n".join(lines)


def _scalar(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value in ({}, []):
        return "[]" if value == [] else "{}"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
