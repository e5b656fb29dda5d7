# SPDX-License-Identifier: Apache-2.0
"""What a network of gateways consists of, and the configuration that follows from it.

A topology names nodes, their SAEs, the links between the nodes and who may share keys with
whom. It knows no folder, no port and no process: those belong to network.py.
"""

from dataclasses import dataclass, field

NODE_CHUNKS = 4096  # of each link in networks that relay
ACK_PATH = "/kmapi/v1/ext_keys/ack"


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

    def uri(self, node):
        """What it calls itself over ETSI GS QKD 004, at its node."""
        return f"qkd://{self.name}@{node.id}"


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
    dialect: str = "b"  # of profile bin, or the name of another profile
    push: bool = False  # where the profile can both
    push_drop: bool = False  # http-push: the simulators drop what is refused
    tls: bool = True
    client_certificate: bool = True
    rate_bps: int = 20_000_000
    latency_ms: int = 0
    chunk_size: int = 32
    segment_chunks: int = 256
    store_chunks: int = 0  # that the simulators hold ready for a stream; 0: their default
    simulated: bool = True
    source: dict = field(default_factory=dict)
    node_chunks: int = 0  # of each direction, kept by its owner for relaying
    node_percent: int = None
    cost: int = 1

    def streams(self):
        """(name, owner, far end) of each stream of the link."""
        a, b = short(self.a), short(self.b)
        return ((f"{a}-to-{b}", self.a, self.b), (f"{b}-to-{a}", self.b, self.a))

    @property
    def profile(self):
        return f"bin-{self.dialect}" if len(self.dialect) == 1 else self.dialect

    @property
    def pushes_apart(self):
        return self.profile == "http-push"

    def sim(self, node):
        return self.sim_a if node == self.a else self.sim_b

    def other(self, node):
        return self.b if node == self.a else self.a


@dataclass(frozen=True)
class Relay:
    """A virtual stream: its keys are drawn at `source` and relayed to `target`."""

    source: str
    target: str
    paths: int = 1
    fewer_paths: bool = False
    max_hops: int = None
    routes: tuple = ()  # static ones, each a tuple of the nodes in between; none: found
    random: str = None
    chunk_size: int = 32
    segment_chunks: int = 256
    node_chunks: int = 512  # for keys with IDs of their own

    @property
    def name(self):
        return f"relay-{short(self.source)}-to-{short(self.target)}"

    def other(self, node):
        return self.target if node == self.source else self.source


@dataclass(frozen=True)
class Peering:
    """Two networks of different operators, whose border nodes hand keys to one another (ETSI GS QKD 020).

    `kxi`: the border nodes stand apart and share a link, whose key masks what they hand over; else
    they stand in one place. `guest` names a further peer of `a` with a certificate of its own, as
    which a test may act as the other network.
    """

    a: str
    b: str
    kxi: bool = False
    guest: str = None

    def other(self, node):
        return self.b if node == self.a else self.a

    def link(self):
        return Link(self.a, self.b, f"sim-{short(self.a)}-{short(self.b)}", f"sim-{short(self.b)}-{short(self.a)}",
                    node_chunks=NODE_CHUNKS)


def both_ways(a, b, **options):
    """The two virtual streams between two nodes; static routes are given from a to b."""
    back = tuple(tuple(reversed(route)) for route in options.get("routes", ()))
    return Relay(a, b, **options), Relay(b, a, **{**options, "routes": back})


def short(node_name):
    return node_name.removeprefix("kme-")


@dataclass(frozen=True)
class Topology:
    name: str
    nodes: tuple
    links: tuple
    groups: tuple = ()  # each a tuple of SAE names that may share keys with one another
    relays: tuple = ()
    ready_chunks: int = 16384
    peerings: tuple = ()

    def node(self, name):
        return next(n for n in self.nodes if n.name == name)

    def home(self, sae):
        """The node where an SAE (by name) lives."""
        return next(n for n in self.nodes if any(s.name == sae for s in n.saes))

    def network_of(self, node_name):
        """The names of the nodes of one operator: those that links join, but for links between borders."""
        between = [{p.a, p.b} for p in self.peerings]
        names, todo = set(), [node_name]
        while todo:
            name = todo.pop()
            names.add(name)
            todo += [link.other(name) for link in self.links_of(name)
                     if {link.a, link.b} not in between and link.other(name) not in names]
        return names

    def peerings_of(self, node_name):
        return [p for p in self.peerings if node_name in (p.a, p.b)]

    def border(self, node_name):
        """The node of that network over which keys go to others."""
        here = self.network_of(node_name)
        return next(name for p in self.peerings for name in (p.a, p.b) if name in here)

    def saes(self):
        return [s for n in self.nodes for s in n.saes]

    def links_of(self, node_name):
        return [link for link in self.links if node_name in (link.a, link.b)]

    def relays_of(self, node_name):
        """The virtual streams that begin or end there."""
        return [relay for relay in self.relays if node_name in (relay.source, relay.target)]

    def is_pushed_to(self, node_name):
        """Whether modules push key to a listener of the node."""
        return any(link.pushes_apart for link in self.links_of(node_name))

    def neighbours_of(self, node_name):
        """The nodes whose gateways it calls: at its links and at the far ends of its virtual streams."""
        names = [x.other(node_name) for x in (*self.links_of(node_name), *self.relays_of(node_name))]
        return [self.node(name) for name in dict.fromkeys(names)]

    def certificates(self):
        """Names of all that has a certificate."""
        sims = [sim for link in self.links for sim in (link.sim_a, link.sim_b)]
        guests = [p.guest for p in self.peerings if p.guest]
        return [*(n.name for n in self.nodes), *sims, *guests, *(s.name for s in self.saes())]


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


def _link(a, b, **options):
    """A link of a network: each end's simulator is named after where it stands and leads to."""
    return Link(a, b, f"sim-{short(a)}-{short(b)}", f"sim-{short(b)}-{short(a)}",
                **{"node_chunks": NODE_CHUNKS, **options})


def _network(name, nodes, links, homes, ends, relay, extra=(), ready_chunks=2048):
    """`homes` {SAE name: node name}; every SAE may share keys with every other; virtual streams
    run both ways between `ends` and between the further pairs of nodes in `extra`."""
    return Topology(
        name=name,
        nodes=tuple(Node(n, tuple(Sae(s) for s, home in homes.items() if home == n)) for n in nodes),
        links=tuple(links),
        groups=(tuple(homes),),
        relays=tuple(r for pair_ in (ends, *extra) for r in both_ways(*pair_, **relay)),
        ready_chunks=ready_chunks,
    )


def chain(more_saes=None, link=None, **relay):
    """KME-A - KME-B - KME-C, and a second, dearer way KME-A - KME-D - KME-C. `more_saes`
    {SAE name: node name}; `link` has options of every link, `relay` of the virtual streams."""
    link = link or {}
    dear = {"cost": 4, **link}
    return _network(
        "chain", ("kme-a", "kme-b", "kme-c", "kme-d"),
        (_link("kme-a", "kme-b", **link), _link("kme-b", "kme-c", **link),
         _link("kme-a", "kme-d", **dear), _link("kme-d", "kme-c", **dear)),
        {"alice": "kme-a", "bob": "kme-b", "carol": "kme-c", **(more_saes or {})},
        ("kme-a", "kme-c"), relay)


def diamond(paths=2, link=None, **relay):
    """KME-A and KME-C with KME-B and KME-D in between, and a share of each key over each."""
    link = link or {}
    return _network(
        "diamond", ("kme-a", "kme-b", "kme-c", "kme-d"),
        [_link(*ends, **link) for ends in (("kme-a", "kme-b"), ("kme-b", "kme-c"),
                                           ("kme-a", "kme-d"), ("kme-d", "kme-c"))],
        {"alice": "kme-a", "bob": "kme-b", "carol": "kme-c"},
        ("kme-a", "kme-c"), {"paths": paths, **relay})


def _row(n):
    """kme-a, kme-b, ..."""
    return [f"kme-{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"[:n]]


def line(n=3, link=None, **relay):
    """n nodes in a row; alice at the first, carol at the last, bob beside alice."""
    nodes = _row(n)
    homes = {"alice": nodes[0], "carol": nodes[-1]}
    if n > 2:
        homes["bob"] = nodes[1]
    return _network(f"line-{n}", nodes, [_link(a, b, **(link or {})) for a, b in zip(nodes, nodes[1:])],
                    homes, (nodes[0], nodes[-1]), relay)


def ring(n=5, link=None, **relay):
    """n nodes in a ring; alice at the first, carol on the other side, bob beside alice."""
    nodes = _row(n)
    far = nodes[n // 2]
    return _network(f"ring-{n}", nodes,
                    [_link(a, b, **(link or {})) for a, b in zip(nodes, [*nodes[1:], nodes[0]])],
                    {"alice": nodes[0], "bob": nodes[1], "carol": far}, (nodes[0], far), relay)


def operators(kxi=False, link=None):
    """Two networks: KME-A and its border KME-G1; KME-G2, the other's border, and KME-Z. The borders
    stand side by side, or with `kxi` apart, joined by a link."""
    peering = Peering("kme-g1", "kme-g2", kxi, guest="kme-peer")
    between = (peering.link(),) if kxi else ()
    return Topology(
        name="operators",
        nodes=(Node("kme-a", (Sae("alice"),)), Node("kme-g1"), Node("kme-g2"), Node("kme-z", (Sae("zoe"),))),
        links=(_link("kme-a", "kme-g1", **(link or {})), _link("kme-g2", "kme-z", **(link or {})), *between),
        groups=(("alice", "zoe"),),
        peerings=(peering,),
        ready_chunks=2048,
    )


TOPOLOGIES = {"pair": pair, "chain": chain, "operators": operators}


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
    source = {"profile": link.profile, "address": f"{host}:{port}",
              "transport": "tls" if link.tls else "tcp"}
    if link.tls:
        source.update(_tls(node.name), server_name=f"{link.sim(node.name)}.demo")
    if link.push:
        source["mode"] = "push"
    if link.pushes_apart:
        source["pusher"] = {"dns": f"{link.sim(node.name)}.demo"}
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
            stream = {
                "name": name,
                "neighbour": topology.node(link.other(node.name)).id,
                "direction": "outbound" if owner == node.name else "inbound",
                "chunk_size": link.chunk_size,
                "segment_chunks": link.segment_chunks,
            }
            if owner == node.name and link.node_chunks:
                stream["node_chunks"] = link.node_chunks
                if link.node_percent is not None:
                    stream["node_percent"] = link.node_percent
            stream["source"] = _source(node, link, name, endpoints[link.sim(node.name)])
            streams.append(stream)
    return streams + [_virtual(topology, node, relay) for relay in topology.relays_of(node.name)]


def _virtual(topology, node, relay):
    here = relay.source == node.name
    stream = {
        "name": relay.name,
        "neighbour": topology.node(relay.other(node.name)).id,
        "direction": "outbound" if here else "inbound",
        "chunk_size": relay.chunk_size,
        "segment_chunks": relay.segment_chunks,
    }
    if here and relay.node_chunks:
        stream["node_chunks"] = relay.node_chunks
    both = {"paths": relay.paths, "fewer_paths": relay.fewer_paths} if relay.paths > 1 else {}
    return {**stream, "relay": {**both, **_drawn(topology, relay)} if here else both}


def _drawn(topology, relay):
    """Of section `relay`, what only the end that draws the keys has, where it differs from the default."""
    section = {}
    if relay.max_hops is not None:
        section["max_hops"] = relay.max_hops
    if relay.random:
        section["random"] = relay.random
    if relay.routes:
        section["routes"] = [{"via": [topology.node(name).id for name in route]} for route in relay.routes]
    return section


def _links(topology):
    return [{"a": topology.node(link.a).id, "b": topology.node(link.b).id, "cost": link.cost}
            for link in topology.links]


def _admin(node, address):
    return {"socket": f"{node.name}/admin.sock",
            "listener": {"listen": address(f"{node.name}/admin"), **_tls(node.name, crl="pki/crl.pem")},
            "admins": [{"name": "admin", "certificate": {"uri": "urn:qkdgate:admin"}},
                       {"name": "viewer", "certificate": {"uri": "urn:qkdgate:admin-viewer"}, "read_only": True}],
            "scrape": {"listen": address(f"{node.name}/scrape")}}


def _app_listener(node, endpoints):
    """Where applications ask for key streams; plain TCP acts for the node's first SAE, on loopback."""
    host, port = endpoints[f"{node.name}/app"]
    plain = {"plain_sae": node.saes[0].id} if node.saes else {}
    return {"app_listener": {"listen": f"{host}:{port}", **_tls(node.name, crl="pki/crl.pem"), **plain}}
def _place(topology, node, sae, home):
    """Where an SAE of another node lives: there, or behind the border. None: told by `peers`."""
    if home.name in topology.network_of(node.name):
        return {"sae": sae.id, "kme": home.id, "applications": [sae.uri(home)]}
    border = topology.border(node.name)
    return None if border == node.name else {"sae": sae.id, "border": topology.node(border).id}


def _directory(topology, node):
    places = [_place(topology, node, sae, home)
              for home in topology.nodes if home is not node for sae in home.saes]
    return [place for place in places if place]


def _saes_of(topology, names):
    return [sae.id for name in names for sae in topology.node(name).saes]


def _peer(topology, peering, node, url):
    """The other border as a peer of a border node; `url(listener)` is where one listens."""
    far = peering.other(node.name)
    peer = {
        "id": topology.node(far).id,
        "url": url(f"{far}/kxi"),
        "certificate": {"dns": f"{far}.demo"},
        "callback_url": url(f"{far}/kxi") + ACK_PATH,
        "our_callback_url": url(f"{node.name}/kxi") + ACK_PATH,
        "link": "kxi" if peering.kxi else "kxi-prime",
    }
    if peering.kxi:
        peer["stream"] = f"{short(node.name)}-to-{short(far)}"
    return {**peer, "saes": _saes_of(topology, sorted(topology.network_of(far))),
            "reach": _saes_of(topology, sorted(topology.network_of(node.name)))}


def _peers(topology, node, url):
    peers = []
    for peering in topology.peerings_of(node.name):
        peer = _peer(topology, peering, node, url)
        peers.append(peer)
        if peering.guest and node.name == peering.a:
            peer = {**peer, "id": peering.guest.upper(), "url": url(peering.guest),
                    "certificate": {"dns": f"{peering.guest}.demo"},
                    "saes": [f"{sae[:-1]}*" for sae in peer["saes"]],
                    "callback_url": url(peering.guest) + ACK_PATH, "link": "kxi-prime"}
            peer.pop("stream", None)
            peers.append(peer)
    return peers


def node_config(topology, node, endpoints):
    """The configuration of one gateway as nested dicts and lists, paths relative to its folder.

    `endpoints` maps a process or listener name to (host, port): NODE/sae, NODE/kms, NODE/kxi,
    SIM, and the guest of a peering; NODE/admin and NODE/scrape where there is an admin interface.
    """
    def address(name):
        host, port = endpoints[name]
        return f"{host}:{port}"

    config = {
        "kme": {"id": node.id},
        "sae_listener": {"listen": address(f"{node.name}/sae"),
                         **_tls(node.name, crl="pki/crl.pem"), "min_version": "1.3"},
        **_app_listener(node, endpoints),
        "kms_listener": {"listen": address(f"{node.name}/kms"), **_tls(node.name)},
        "store": {"database": f"{node.name}/keys.db", "anchor": f"{node.name}-anchor/anchor",
                  "master_key": f"{node.name}.master", "key_ring": f"{node.name}-anchor/key-ring",
                  "flush_ms": 1000},
        "audit": {"file": f"{node.name}/audit.log"},
        "log": {"level": "info", "format": "text"},
        "saes": [{"id": s.id, "certificate": s.certificate, "applications": [s.uri(node)]}
                 for s in node.saes],
        "directory": _directory(topology, node),
        "neighbours": [{"id": n.id, "url": f"https://{address(f'{n.name}/kms')}",
                        "certificate": {"dns": f"{n.name}.demo"}} for n in topology.neighbours_of(node.name)],
        "streams": _streams(topology, node, endpoints),
        "policy": _policy(topology),
        "pool": {"ready_chunks": topology.ready_chunks, "inbound_chunks": 16 * topology.ready_chunks},
    }
    if f"{node.name}/admin" in endpoints:
        config["admin"] = _admin(node, address)
    if peers := _peers(topology, node, lambda name: f"https://{address(name)}"):
        config["kxi_listener"] = {"listen": address(f"{node.name}/kxi"), **_tls(node.name)}
        config["peers"] = peers
    if topology.is_pushed_to(node.name):
        config["push_listener"] = {"listen": address(f"{node.name}/push"), **_tls(node.name)}
    if topology.relays:
        config["topology"] = {"links": _links(topology)}
        config["relay"] = {"penalty_s": 1}
    return config


def sim_arguments(link, which, endpoints, pki):
    """The command line (without the program) of one end of a simulated link."""
    name = link.sim_a if which == "a" else link.sim_b
    host, port = endpoints[name]
    far_host, far_port = endpoints[f"{link.sim_a}/link"]
    role = "--link-listen" if which == "a" else "--link-connect"
    arguments = ["--listen", f"{host}:{port}", "--profile", link.profile,
                 role, f"{far_host}:{far_port}", "--rate-bps", str(link.rate_bps)]
    if link.latency_ms:
        arguments += ["--latency-ms", str(link.latency_ms)]
    if link.store_chunks:
        arguments += ["--store-chunks", str(link.store_chunks)]
    if link.push:
        arguments.append("--push")
    if link.pushes_apart:
        push_host, push_port = endpoints[f"{link.a if which == 'a' else link.b}/push"]
        arguments += ["--push-to", f"{push_host}:{push_port}", *(["--push-drop"] if link.push_drop else [])]
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
