# SPDX-License-Identifier: Apache-2.0
"""Key streams of applications whose rights end, or begin, while the gateway runs: reloads, revocations, suspensions."""

import contextlib
import re
import shutil
import signal
import socket
import threading
import uuid

import pytest

from admin import ctl, local
from app004 import App, Closed, JsonApp, app, compare, later, new_ksid, open_pair, uri
from network import make_pki
from processes import wait_for


@pytest.fixture
def network(make_network):
    return make_network(admin=True, stock=500)


def reload(network, change=None, node="kme-a"):
    """The node's configuration with that change, taken by SIGHUP."""
    gateway = network.gateways[node]
    done = len(gateway.lines("event=reloaded"))
    network.write_config(node, change)
    gateway.signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(gateway.lines("event=reloaded")) > done, 30)


def is_closed(one, ksid):
    """The connection that is open ends; no other one is made."""
    with pytest.raises(Closed):
        one.get(ksid, 0)
    return True


def open_or_closed(one, network):
    """A call that waits for its peer, which never comes."""
    try:
        return one.open(uri(network, "alice"), uri(network, "bob"), new_ksid(), timeout_ms=600_000).status
    except Closed:
        return "closed"


def test_a_revoked_application_is_cut_off_and_others_live_on(network):
    alice, bob, dave = app(network, "alice"), app(network, "bob"), app(network, "dave")
    ksid, waiting = open_pair(network, alice, bob), app(network, "alice")
    other = open_pair(network, dave, app(network, "erin"), "dave", "erin")
    compare(alice, bob, ksid, 5)
    assert dave.get(other, 0).status == 0
    assert waiting.get(ksid, 0).status == 0
    answer = later(open_or_closed, waiting, network)
    shutil.copy(network.pki / "alice.pem", network.pki / "revoked-alice.pem")
    make_pki(network.pki)
    assert alice.get(ksid, 1).status == 0  # not before the reload
    reload(network)
    assert is_closed(alice, ksid)  # at the connection that is open
    alice.close_connection()
    assert is_closed(alice, ksid)  # and on a new one
    assert answer() == "closed"    # a call that waited gets no answer
    for index in range(20):
        assert dave.get(other, index).status == 0  # on the connection of before
    assert bob.get(ksid, 2).status == 0  # what its own gateway holds


def test_a_rule_that_is_taken_away_ends_the_streams_under_it(network):
    alice, bob, dave = app(network, "alice"), app(network, "bob"), app(network, "dave")
    ksid = open_pair(network, alice, bob)
    here = open_pair(network, alice, dave, "alice", "dave")
    compare(alice, bob, ksid, 5)
    compare(alice, dave, here, 5)
    blocked = later(app(network, "alice").open, uri(network, "alice"), uri(network, "bob"), new_ksid(),
                    timeout_ms=600_000)

    def no_bob(config):
        for rule in config["policy"]:
            rule["slaves"] = [s for s in rule["slaves"] if "sae-bob" != s]
        config["policy"] = [r for r in config["policy"] if r["slaves"] and r["master"] != "sae-bob"]

    wait_for("the blocked call to be there", lambda: len(network.gateways["kme-a"].lines("what=opened")) >= 3, 20)
    reload(network, no_bob)
    assert alice.get(ksid, 0).status == 4 and blocked().status == 4
    assert alice.open(uri(network, "alice"), uri(network, "bob")).status == 4
    compare(alice, dave, here, 8)  # another rule
    # As after CLOSE: the other gateway was told, and its application has what it had.
    assert bob.get(ksid, 2).status == 0
    wait_for("the other end to be told", lambda: bob.get(ksid, 5000).status == 2, 30)
    # The rule is back; the stream is not.
    reload(network)
    assert alice.get(ksid, 0).status == 4
    again = open_pair(network, alice, bob)
    compare(alice, bob, again, 5)


def test_a_uri_that_is_taken_away_ends_its_streams(network):
    alice, dave = app(network, "alice"), app(network, "dave")
    here = open_pair(network, alice, dave, "alice", "dave")
    compare(alice, dave, here, 3)

    def no_uri(config):
        config["saes"][0]["applications"] = ["qkd://somebody-else"]

    assert network.topology.node("kme-a").saes[0].name == "alice"
    reload(network, no_uri)
    assert alice.get(here, 0).status == 4
    assert dave.get(here, 0).status in (0, 2)  # its own end is open still
    assert alice.open(uri(network, "alice"), uri(network, "dave")).status == 4


def test_saes_come_and_go(network):
    make_pki(network.pki, "frank")
    frank = App(network.endpoints["kme-a/app"], network.pki, "frank")
    mine = "qkd://frank@KME-A"
    with pytest.raises(Closed):
        frank.open(mine, uri(network, "dave"))
    frank.close_connection()

    def with_frank(config):
        config["saes"].append({"id": "sae-frank", "certificate": {"uri": "urn:sae:sae-frank"},
                               "applications": [mine]})
        config["policy"].append({"master": "sae-frank", "slaves": ["sae-dave"]})

    reload(network, with_frank)
    dave = app(network, "dave")
    opened = frank.open(mine, uri(network, "dave"))
    assert opened.status == 0 and dave.open(uri(network, "dave"), mine, opened.ksid).status == 0
    compare(frank, dave, opened.ksid, 5)
    reload(network)
    assert is_closed(frank, opened.ksid)
    assert dave.get(opened.ksid, 0).status == 4  # no rule has it
    # Many reloads: connections of before go on.
    other = open_pair(network, app(network, "alice"), dave, "alice", "dave")
    for i in range(6):
        reload(network, with_frank if i % 2 == 0 else None)
        assert dave.get(other, i).status == 0


def test_plain_tcp_follows_a_reload(network):
    plain, dave = app(network, "alice", plain=True), app(network, "dave")
    ksid = open_pair(network, plain, dave, "alice", "dave")
    compare(plain, dave, ksid, 3)
    reload(network, lambda c: c["saes"][0].update(applications=["qkd://somebody-else"]))
    assert plain.get(ksid, 0).status == 4
    reload(network)
    again = open_pair(network, plain, dave, "alice", "dave")
    compare(plain, dave, again, 3)


@pytest.fixture(scope="module")
def lasting(make_shared):
    """For tests that leave it as it was."""
    made = make_shared(admin=True, stock=500)
    make_pki(made.pki, "frank")
    return made


def test_an_application_of_an_entry_made_at_run_time(lasting):
    """It comes with its SAE and a rule, at one node and across two, and goes with either."""
    net, name = lasting, "qkd://frank"
    frank = lambda: App(net.endpoints["kme-a/app"], net.pki, "frank", "b")  # noqa: E731
    bob, dave = app(net, "bob"), app(net, "dave")
    with pytest.raises((Closed, OSError)):
        frank().open(name, uri(net, "dave"))
    sae, rule = ["sae", "add", "sae-frank", "uri=urn:sae:sae-frank", f"applications={name}"], ["rule", "add", "frank"]
    assert ctl(net, *sae)[0] == 0
    one = frank()
    assert one.open(name, uri(net, "dave")).status == 4  # known, but nothing is allowed
    for node in ("kme-a", "kme-b"):
        assert ctl(net, *rule, "sae-frank", "sae-dave,sae-bob", node=node)[0] == 0
    reload(net, lambda c: c["directory"].append({"sae": "sae-frank", "kme": "KME-A", "applications": [name]}), "kme-b")
    ksids = []
    for other, at in ((dave, "dave"), (bob, "bob")):
        assert one.open("qkd://another", uri(net, at)).status == 4  # not a URI of its own
        opened = one.open(name, uri(net, at))
        assert opened.status == 0 and other.open(uri(net, at), name, opened.ksid).status == 0
        compare(one, other, opened.ksid, 4)
        ksids.append(opened.ksid)
    assert ctl(net, "suspend", "sae-frank")[0] == 0
    assert [one.get(k, 0).status for k in ksids] == [4, 4]
    assert ctl(net, "resume", "sae-frank")[0] == 0
    compare(one, dave, ksids[0], 4)
    assert ctl(net, "rule", "remove", "frank")[0] == 0
    assert [one.get(k, 0).status for k in ksids] == [4, 4] and one.open(name, uri(net, "dave")).status == 4
    assert dave.get(ksids[0], 0).status == 4
    assert ctl(net, "sae", "remove", "sae-frank")[0] == 0
    assert is_closed(one, ksids[0])
    assert ctl(net, "rule", "remove", "frank", node="kme-b")[0] == 0
    reload(net, node="kme-b")


def test_one_id_goes_through_the_lines_of_an_open_connect_at_both_nodes(lasting):
    net = lasting
    for node in ("kme-a", "kme-b"):
        assert ctl(net, "log", "etsi004", "debug", node=node)[0] == 0
    alice, bob = app(net, "alice"), app(net, "bob")
    ksid = open_pair(net, alice, bob)
    compare(alice, bob, ksid, 1)
    text = str(uuid.UUID(bytes=bytes(ksid)))
    (begun,) = wait_for("the line", lambda: net.gateways["kme-a"].lines(f"ksid={text} what=opened"), 20)
    made = re.search(r" request=([0-9a-f]{32})$", begun)[1]
    net.gateways["kme-a"].wait_log("event=answered op=0", f"request={made}")
    net.gateways["kme-b"].wait_log(f"ksid={text} what=announced", f"request={made}")
    # Every request has another one.
    said = wait_for("three answers", lambda: [x for x in net.gateways["kme-a"].lines("event=answered op=")][1:], 20)
    ids = [re.search(r" request=([0-9a-f]{32})$", x)[1] for x in said]
    assert made not in ids and len(set(ids)) == len(ids)
    for node in ("kme-a", "kme-b"):
        assert ctl(net, "log", "etsi004", "default", node=node)[0] == 0


def figures(network, node="kme-a"):
    """Of the listener for applications."""
    text = local(network, node).request("GET", "/metrics").body.decode()
    return {n: int(v) for n, v in re.findall(r'^qkdgate_(\w+){listener="app"} (\d+)$', text, re.M)}


def test_handshakes_of_applications_are_counted(lasting):
    before = figures(lasting)
    with pytest.raises((Closed, OSError)):
        App(lasting.endpoints["kme-a/app"], lasting.pki, "foreign", "b").get(new_ksid(), 0)
    with socket.create_connection(lasting.endpoints["kme-a/app"], 60) as s:
        s.sendall(b"\x16no handshake at all")
        with contextlib.suppress(ConnectionError):
            while s.recv(4096):  # an alert at most
                pass
    alice = app(lasting, "alice")
    assert alice.get(new_ksid(), 0).status != 0
    now = wait_for("the figures", lambda: (f := figures(lasting))["tls_handshake_failures_total"] >=
                   before["tls_handshake_failures_total"] + 2 and f, 20)
    assert now["tls_handshakes_total"] > before["tls_handshakes_total"]
    assert now["tls_handshakes_limited_total"] == 0 and now["connections"] >= 1


def test_a_suspended_application_gets_no_key(lasting):
    network = lasting
    alice, bob, dave = app(network, "alice"), app(network, "bob"), app(network, "dave")
    ksid = open_pair(network, alice, bob)
    here = open_pair(network, alice, dave, "alice", "dave")
    compare(alice, bob, ksid, 3)
    admin = local(network)
    assert admin.post("/api/v1/saes/sae-alice/suspend").status == 200
    assert alice.get(ksid, 0).status == 4 and alice.get(here, 0).status == 4 and dave.get(here, 0).status == 4
    assert alice.open(uri(network, "alice"), uri(network, "bob")).status == 4
    assert admin.post("/api/v1/saes/sae-alice/resume").status == 200
    compare(alice, bob, ksid, 3)  # the stream is as it was
    compare(alice, dave, here, 3)


def test_no_wrong_key_leaves_when_everything_is_zeroized(network):
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 40)
    keys = {alice.get(ksid, i).key for i in range(40)}
    seen, begun = set(), threading.Barrier(5)

    def ask():
        one = app(network, "alice")
        begun.wait(60)
        try:
            while True:
                for answer in one.get_many(ksid, 0, 40):
                    seen.add((answer.status, answer.key))
        except (Closed, ConnectionError):
            return

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(60)
    wait_for("load", lambda: len(seen) >= 40, 60)
    local(network).post("/api/v1/zeroize", {"confirm": "KME-A"})
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    wait_for("its end", lambda: network.gateways["kme-a"].pid is None, 60)
    assert network.gateways["kme-a"].exit_status == 3
    assert {key for status, key in seen if status == 0} == keys
    assert all(key == b"" for status, key in seen if status)


def test_pushing_ends_with_the_right(make_network):
    def pushed(_, config):
        for sae in config["saes"]:
            sae["push"] = sae["applications"]

    network = make_network(tweak=pushed, stock=500)
    node = network.topology.home("alice")
    alice = JsonApp(network.endpoints[f"{node.name}/app"], network.pki, "alice")
    bob = app(network, "bob")
    ksid = open_pair(network, alice, bob, max_bps=256 * 20)
    alice.tell_get(ksid, 0)
    assert alice.chunk().status == 0
    reload(network, lambda c: c["saes"][0].update(certificate={"uri": "urn:sae:nobody"}))
    with pytest.raises(Closed):
        while True:
            assert alice.chunk().status == 0
