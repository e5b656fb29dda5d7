# SPDX-License-Identifier: Apache-2.0
"""For operators: key managers of other networks, suspended and resumed, and transferred keys one by one."""

import json

import pytest

from admin import ctl, local, over_https
from links import issue
from test_acts import acted
from test_operators import started
from topology import operators


@pytest.fixture(scope="module")
def net(make_shared):
    def tweak(name, config):
        config["limits"] = {**config.get("limits", {}), "transfer_timeout_ms": 3000}
        for section in config.get("peers", ()):
            section["ack_timeout_ms"] = 3000

    return started(make_shared, topology=operators(), admin=True, tweak=tweak)


def peer(net, node):
    """The other border, as its neighbour sees it."""
    (found,) = [p for p in local(net, node).get("/api/v1/peers")["peers"] if p["id"].startswith("KME-G")]
    return found


def exchange(net, master="alice", slave="zoe", number=1):
    """Once there is key for it."""
    with net.client(master, timeout_s=60) as one, net.client(slave, timeout_s=60) as other:
        keys = issue(one, f"sae-{slave}", number, 60)
        assert other.dec(f"sae-{master}", *(i for i, _ in keys)).keys() == keys


def test_peers_are_shown(net):
    exchange(net, "alice", "zoe")
    seen = peer(net, "kme-g1")
    assert seen["id"] == "KME-G2" and seen["reached"] is True and not seen["suspended"] and seen["link"] == "kxi-prime"
    status, out, _ = ctl(net, "peers", node="kme-g1")
    assert status == 0 and "KME-G2" in out
    assert ctl(net, "peers")[1] == "no peers\n"


@pytest.mark.parametrize("at,other", [("kme-g1", "KME-G2"), ("kme-g2", "KME-G1")])
def test_a_suspended_peer_gets_and_brings_no_key(net, at, other):
    """At the border that sends, and at the one that takes."""
    exchange(net, "alice", "zoe")
    assert ctl(net, "suspend-peer", other, node=at)[:2] == (0, "done: suspend-peer\n")
    assert acted(net, "suspend peer", node=at)[-1]["peer"] == other
    net.gateways[at].kill()
    net.restart(at)
    assert peer(net, at)["suspended"]
    with net.client("alice", timeout_s=60) as alice, net.client("zoe", timeout_s=60) as zoe:
        assert alice.enc("sae-zoe").status != 200
        assert zoe.enc("sae-alice").status != 200
    assert ctl(net, "resume-peer", other, node=at)[0] == 0
    exchange(net, "alice", "zoe", 5)
    exchange(net, "zoe", "alice", 5)
    assert acted(net, "resume peer", node=at)


def test_who_may_not_and_what_is_not_there(net):
    status, _, err = ctl(net, "suspend-peer", "KME-G3", node="kme-g1")
    assert status == 1 and "is KME-G2 meant?" in err
    status, _, err = ctl(net, "suspend-peer", "KME-G2", where=over_https(net, "admin-viewer", "kme-g1"))
    assert status == 4 and not peer(net, "kme-g1")["suspended"]


def test_transferred_keys_one_by_one(net):
    with net.client("alice", timeout_s=60) as alice, net.client("zoe", timeout_s=60) as zoe:
        ids = [i for i, _ in issue(alice, "sae-zoe", 5, 60)]
        admin, found, after = local(net, "kme-z"), {}, 0
        while after is not None:
            page = admin.get(f"/api/v1/transfers?limit=3&after={after}")
            assert len(page["list"]) <= 3
            rows = [x["row"] for x in page["list"]]
            assert rows == sorted(rows) and all(r > after for r in rows)
            found.update({x["id"]: x for x in page["list"]})
            after = page["next"]
        for key_id in ids:
            (target,) = found[key_id]["targets"]
            assert target["sae"] == "sae-zoe" and target["home"] is None and target["state"] != "delivered"
            assert found[key_id]["initiator"] == "sae-alice" and found[key_id]["origin"] and found[key_id]["has_key"]
            assert found[key_id]["bits"] == 256 and found[key_id]["expires_in_s"] > 0
        assert zoe.dec("sae-alice", ids[0]).status == 200
    status, out, _ = ctl(net, "--json", "--lines", "100", "transfers", node="kme-z")
    (one,) = [x for x in json.loads(out)["list"] if x["id"] == ids[0]]
    assert status == 0 and one["targets"][0]["state"] == "delivered"
    status, out, _ = ctl(net, "--lines", "2", "transfers", node="kme-z")
    assert status == 0 and "more: --after" in out
    for query in ("limit=0", "limit=101", "limit=x", "after=-1", "after=99999999999999999999", "page=2"):
        assert local(net).request("GET", f"/api/v1/transfers?{query}").status == 400, query
