# SPDX-License-Identifier: Apache-2.0
"""Relaying between gateways that share no link, shown so that nothing easier passes for it.

QKDGATE_RELAY_KILLS (default 2) is how often each gateway is killed under load."""

import base64
import contextlib
import functools
import os
import random
import signal
import time

import pytest

import search
from ledger import Ledger
from links import database, issue, not_found, refused, steady_stock
from load import Load, assert_faultless, end_all
from processes import wait_for
from relaying import (MAC_KEYS, Account, Passer, accounts, answered, check_account, hops_of, link_stream, owners,
                      runs_down, table, ways)
from topology import chain, diamond, line

POOL = {"ready_chunks": 1024, "inbound_chunks": 32768}
ENDS = ("alice", "carol")
ACCOUNTED = 5000  # keys
KILLS = int(os.environ.get("QKDGATE_RELAY_KILLS", "2"))
SEED = int(os.environ.get("QKDGATE_SEED") or random.SystemRandom().randrange(2**32))


@pytest.fixture
def make_relaying(make_network):
    """A maker of networks that have keys ready between alice and carol."""
    def make(topology, **options):
        return make_network(topology, **{"pool": POOL, "between": ENDS, **options})
    return make


@pytest.fixture(scope="module")
def shared(make_shared):
    """A chain that tests share which leave it running and stocked; erin lives at KME-C too."""
    return make_shared(chain({"erin": "kme-c"}), pool=POOL, between=ENDS, stock=500)


# --- keys ------------------------------------------------------------------------------------


def test_keys_between_nodes_that_share_no_link(shared):
    ledger = Ledger()
    for master, slave in (ENDS, ENDS[::-1], ("carol", "bob"), ("bob", "alice")):
        Passer(shared, ledger, master, slave).some(300)
    ledger.check()
    assert len(ledger.delivered) == 1200


def test_only_the_slave_gets_a_relayed_key_and_only_once(shared):
    with shared.client("alice") as alice, shared.client("carol") as carol, \
            shared.client("erin") as erin, shared.client("bob") as bob:
        (key,) = issue(alice, "sae-carol")
        assert refused(erin.get_dec("sae-alice", key[0]))
        assert not_found(bob.get_dec("sae-alice", key[0])) or refused(bob.get_dec("sae-alice", key[0]))
        assert carol.get_dec("sae-alice", key[0]).keys() == [key]
        assert not_found(carol.get_dec("sae-alice", key[0]))


def test_the_hop_count_is_told_and_can_be_limited(shared):
    with shared.client("alice") as alice:
        assert [hops_of(k) for k in answered(alice, "sae-carol", number=3).json["keys"]] == [1, 1, 1]
        assert [hops_of(k) for k in answered(alice, "sae-bob", number=2).json["keys"]] == [0, 0]
        for slave, wishes, status in (("carol", [{"max_hops": 1}], 200), ("carol", [{"min_hops": 1}], 200),
                                      ("carol", [{"min_hops": 1}, {"max_hops": 1}], 200),
                                      ("carol", [{"max_hops": 0}], 400), ("carol", [{"min_hops": 2}], 503),
                                      ("carol", [{"min_hops": 15}], 400), ("bob", [{"max_hops": 0}], 200),
                                      ("bob", [{"min_hops": 1}], 400)):
            ask = alice.enc if status != 200 else functools.partial(answered, alice)
            answer = ask(f"sae-{slave}", extension_mandatory=wishes)
            assert answer.status == status, (slave, wishes, answer.body)


def test_a_key_for_slaves_at_three_nodes_reaches_each_once(shared):
    """bob at the next node, carol and erin behind it, alice asks."""
    with shared.client("alice") as alice:
        answer = answered(alice, "sae-carol", number=3, additional_slave_SAE_IDs=["sae-bob", "sae-erin"])
        assert answer.status == 200, answer.body
        keys = answer.keys()
    ids = [i for i, _ in keys]
    for name in ("carol", "bob", "erin"):
        with shared.client(name) as slave:
            assert slave.dec("sae-alice", *ids).keys() == keys, name
            assert not_found(slave.dec("sae-alice", ids[0])), name


# --- nodes and links that fail ----------------------------------------------------------------


def test_more_keys_than_were_in_stock_when_the_node_in_between_died(make_relaying):
    """First KME-B, then KME-D: each time several stocks pass by the other way."""
    net = make_relaying(chain(), stock=500)
    ledger = Ledger()
    for dead, other in (("kme-b", "kme-d"), ("kme-d", "kme-b")):
        net.gateways[dead].kill()
        seen = {relay: len(ways(net, relay)) - 1 for relay in net.topology.relays}
        for ends in (ENDS, ENDS[::-1]):
            Passer(net, ledger, *ends).some(net.stock(*ends) + 3 * POOL["ready_chunks"])
        for relay in net.topology.relays:
            assert other in {way[1] for way in ways(net, relay, seen[relay])}
        net.restart(dead)
        net.wait_stock("bob", "alice")
    ledger.check()


def test_a_dry_link_on_the_only_path_ends_in_503_and_recovers(make_relaying):
    net = make_relaying(line(3, link={"node_chunks": POOL["ready_chunks"]}))
    ledger = Ledger()
    passer = Passer(net, ledger, *ENDS)
    simulators = [net.sims[name] for name in ("sim-b-c", "sim-c-b")]
    for sim in simulators:
        sim.signal(signal.SIGSTOP)
    answer, passed = runs_down(passer, 4 * POOL["ready_chunks"])  # stock, node key, and what was complete
    print(f"{passed} keys passed after the link between KME-B and KME-C had stopped")
    assert answer.status == 503 and answer.message == "insufficient key material"
    assert 1 <= int(answer.headers["Retry-After"]) <= 3600
    with net.client("alice") as alice:
        assert answered(alice, "sae-bob").status == 200  # the other link has key
    for sim in simulators:
        sim.signal(signal.SIGCONT)
    passer.some(2 * POOL["ready_chunks"])
    Passer(net, ledger, *ENDS[::-1]).some(2 * POOL["ready_chunks"])
    ledger.check()


def test_every_node_killed_in_turn_under_load(make_relaying):
    print(f"QKDGATE_SEED={SEED} QKDGATE_RELAY_KILLS={KILLS}")
    net = make_relaying(chain())
    ledger = Ledger()
    rng = random.Random(SEED)
    loads = [Load(net, ledger, *ends, SEED + i)
             for i, ends in enumerate((ENDS, ENDS[::-1], ("alice", "bob"), ("carol", "bob")))]
    for load in loads:
        load.start()
    for victim in sorted(net.gateways) * KILLS:
        time.sleep(rng.uniform(0.2, 1.2))
        net.gateways[victim].kill()
        time.sleep(rng.choice((0, 0.3, 1)))
        net.gateways[victim].start()
    for gateway in net.gateways.values():
        gateway.wait_ready(30)
    end_all(loads)
    print(f"{len(ledger.issued)} keys issued, {len(ledger.delivered)} delivered, "
          f"{len(ledger.lost)} in requests without an answer")
    assert_faultless(loads)
    for load in loads:  # nothing is stuck: twice what a pool holds
        Passer(net, ledger, load.master, load.slave).some(2 * POOL["ready_chunks"])
    ledger.check()
    assert len(ledger.delivered) > 8 * POOL["ready_chunks"]


def test_shares_over_two_paths_and_none_over_fewer(make_relaying):
    """Each node in between carries a share of every byte; with one of them dead the pool runs down."""
    net = make_relaying(diamond())
    ledger = Ledger()
    passer = Passer(net, ledger, *ENDS)
    passer.some(2 * POOL["ready_chunks"])
    relay = net.topology.relays[0]
    assert {way[1] for way in ways(net, relay)} == {"kme-b", "kme-d"}
    net.gateways["kme-d"].kill()
    time.sleep(0.5)
    runs_down(passer, 3 * POOL["ready_chunks"])
    net.restart("kme-d")
    passer.some(2 * POOL["ready_chunks"])
    ledger.check()


def test_fewer_paths_where_the_configuration_allows_them(make_relaying):
    net = make_relaying(diamond(fewer_paths=True))
    ledger = Ledger()
    net.gateways["kme-d"].kill()
    Passer(net, ledger, *ENDS).some(net.stock(*ENDS) + 2 * POOL["ready_chunks"])
    ledger.check()


# --- pads --------------------------------------------------------------------------------------


def test_the_accounts_of_pads_add_up_to_the_byte(make_relaying):
    """Two quiet moments; what passed in between is known from the databases."""
    net = make_relaying(line(4), stock=500)
    before, relayed = quiet(net), relayed_bytes(net)
    net.outage(False)
    ledger = Ledger()
    for ends in (ENDS, ENDS[::-1]):
        Passer(net, ledger, *ends).some(ACCOUNTED)
    ledger.check()
    quiet(net, wait_log=False)
    net.stop()
    after = accounts(net)
    for account in (*before.values(), *after.values()):
        check_account(account)
    rose = {where: account - before.get(where, Account()) for where, account in after.items()}
    print(table(after), "\nin between:", table(rose), sep="\n")
    total = relayed_bytes(net)
    for relay in net.topology.relays:
        check_relay(net, relay, total[relay.name] - relayed[relay.name], rose)


def check_relay(net, relay, nbytes, rose):
    """At every hop and at both its ends the accounts rose by the bytes relayed, and by the MACs' keys."""
    assert nbytes > (ACCOUNTED - 2 * POOL["ready_chunks"]) * 32  # a pool is not filled to the last chunk
    nodes = [n.name for n in net.topology.nodes]
    if relay.source != nodes[0]:
        nodes.reverse()
    hops = list(zip(nodes, nodes[1:]))
    used = messages = 0
    for a, b in hops:
        stream = link_stream(net, a, b)
        sent, received = rose[(stream, a)], rose[(stream, b)]
        assert (sent.data, sent.used, sent.messages) == (received.data, received.used, received.messages)
        assert sent.data == nbytes, (stream, sent, nbytes)
        used += sent.used
        messages += sent.messages
    print(f"{relay.name}: {nbytes} bytes x {len(hops)} links + {MAC_KEYS} x {messages} messages = {used}")
    assert nbytes * len(hops) + MAC_KEYS * messages == used


def quiet(net, wait_log=True):
    """The accounts once the pools are full, no link gives key any more, and every gateway has logged its own
    since."""
    steady_stock(net, *ENDS)
    steady_stock(net, *ENDS[::-1])
    net.outage(True)
    steady_stock(net, *ENDS)
    steady_stock(net, *ENDS[::-1])
    if wait_log:
        time.sleep(11)  # they are logged at most every ten seconds
        wait_for("the same at both ends of every link", lambda: even(net), 60, 0.5)
    return accounts(net)


def even(net):
    """Whether what was sent over each link has been received."""
    found = accounts(net)
    return all((found[(stream, a)].used, found[(stream, a)].messages) ==
               (found[(stream, b)].used, found[(stream, b)].messages)
               for stream, (a, b) in owners(net).items() if {(stream, a), (stream, b)} <= found.keys())


def relayed_bytes(net):
    """{virtual stream: bytes of all segments that its owner drew and knows the fate of}"""
    found = {}
    for relay in net.topology.relays:
        ((chunks,),) = database(net, relay.source,
                                f"SELECT sum(next_index) FROM epoch WHERE stream = '{relay.name}'")
        found[relay.name] = chunks * relay.chunk_size
    return found


# --- what the nodes in between and the cables get to see ---------------------------------------


def test_no_relayed_key_rests_at_a_node_in_between(make_relaying):
    """Database, write-ahead log, logs and audit of KME-B and KME-D, again and again while keys are
    relayed and after; and the memory of both."""
    net = make_relaying(chain(), tweak=lambda name, config: config["log"].update(level="debug"))
    ledger = Ledger()
    passer = Passer(net, ledger, *ENDS)
    seen = {}
    for _ in range(3):
        passer.some(400)
        for node in ("kme-b", "kme-d"):
            seen.setdefault(node, []).append(copy_of(net, node))
    wanted = search.pieces(ledger.issued.values())
    for node, copies in seen.items():
        for copy in copies:
            assert all(copy.values()), f"nothing was read of {node}"
            for what, data in copy.items():
                assert not search.holds_in_any_form(wanted, data), f"{what} of {node}"
    net.stop()
    for node in seen:
        assert search.files_that_hold(wanted, net.folder / node, net.folder / f"{node}-anchor") == []
    (planted := net.folder / "kme-b" / "planted").write_bytes(b"x" + next(iter(ledger.issued.values()))[9:20])
    assert search.files_that_hold(wanted, net.folder / "kme-b") == [planted]
    assert not list(net.folder.rglob("core*"))


def copy_of(net, node):
    """{what: bytes} of a gateway's files, and of its memory where that can be read."""
    paths = [*(net.folder / node).rglob("*"), *(net.folder / f"{node}-anchor").rglob("*"),
             net.gateways[node].log_file]
    found = {}
    for path in (p for p in paths if p.is_file() and p.suffix not in (".db-shm",)):
        with contextlib.suppress(FileNotFoundError):  # one that was renamed meanwhile
            found[str(path)] = path.read_bytes()
    found = {name: data for name, data in found.items() if data}
    try:
        found["memory"] = search.memory_of(net.gateways[node].pid)
    except PermissionError:
        pass  # only root can
    return found


def test_nothing_but_masked_key_crosses_any_connection(make_relaying, make_recorder):
    """Every byte inside TLS between every two gateways, both ways; keys relayed and of all slaves."""
    net = make_relaying(line(3), start=False)
    names = [n.name for n in net.topology.nodes]
    recorders = {(a, b): make_recorder(net, a, b) for a in names for b in names if a != b}
    net.start()
    ledger = Ledger()
    for ends in (ENDS, ENDS[::-1], ("alice", "bob"), ("bob", "carol")):
        Passer(net, ledger, *ends).some(700)
    with net.client("alice") as alice:
        for slave, extra in (("carol", "bob"), ("bob", "carol")):
            answer = answered(alice, f"sae-{slave}", number=20, additional_slave_SAE_IDs=[f"sae-{extra}"])
            assert answer.status == 200, answer.body
            ledger.issue(answer.keys())
    ledger.check()
    wanted = search.pieces(ledger.issued.values())
    requests = {ends: recorder.requests() for ends, recorder in recorders.items()}
    print(*(f"{a} to {b}: {dict(n)}" for (a, b), n in requests.items()), sep="\n")
    for a, b in zip(names, names[1:]):
        assert requests[(a, b)]["forward_keys"] and requests[(b, a)]["forward_keys"]
    assert not requests[("kme-a", "kme-c")]["forward_keys"] and not requests[("kme-c", "kme-a")]["forward_keys"]
    assert requests[("kme-a", "kme-c")]["new_key_batch"] and requests[("kme-a", "kme-c")]["make_keys_external"]
    plaintext = [text for recorder in recorders.values() for text in recorder.plaintext()]
    carried = sum(len(data) for text in plaintext for data in search.decoded(text))
    assert carried > 32 * len(ledger.issued)  # what masked key there is was seen
    for text in plaintext:
        assert not search.holds_in_any_form(wanted, text)
    key = next(iter(ledger.issued.values()))
    for planted in (key[3:11], key.hex()[8:40].encode(), base64.b64encode(b"12" + key)):
        assert search.holds_in_any_form(wanted, plaintext[0] + b'"' + planted + b'"')
