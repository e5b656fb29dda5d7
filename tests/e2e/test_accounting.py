# SPDX-License-Identifier: Apache-2.0
"""Who got how much, by day; and rates over a restart."""

import csv
import io
import json
import sqlite3
import time

import pytest

from admin import ctl, local, over_https
from links import database, issue
from processes import wait_for


@pytest.fixture
def net(make_network):
    return make_network(admin=True, stock=500)


def rows(net, node="kme-a", **query):
    """By SAE and other, all days together."""
    answer = local(net, node).get("/api/v1/accounting?" + "&".join(f"{k}={v}" for k, v in query.items()))
    found = {}
    for row in answer["rows"]:
        total = found.setdefault((row["sae"], row["other"]), dict.fromkeys(FIGURES, 0))
        for name in FIGURES:
            total[name] += row[name]
    return found


FIGURES = ["requests", "issued", "issued_bits", "fetched", "fetched_bits", "refused", "limited"]


def test_totals_are_what_was_asked_for_and_given(net):
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=7) + issue(alice, number=2, size=512)
        ids = [i for i, _ in keys]
        assert bob.dec("sae-alice", *ids).status == 200
        assert bob.dec("sae-alice", ids[0]).status == 400
        assert alice.enc("sae-nobody").status in (400, 401)
    here, there = rows(net), rows(net, "kme-b")
    want = {"issued": 9, "issued_bits": 7 * 256 + 2 * 512, "fetched": 0, "limited": 0}
    assert {k: here["sae-alice", "sae-bob"][k] for k in want} == want
    assert here["sae-alice", ""]["refused"] == 1
    want = {"requests": 2, "fetched": 9, "fetched_bits": 7 * 256 + 2 * 512, "refused": 1, "issued": 0}
    assert {k: there["sae-bob", "sae-alice"][k] for k in want} == want
    # An orderly stop keeps all of it; what comes after adds up.
    net.gateways["kme-a"].stop()
    net.restart("kme-a")
    assert rows(net) == here
    with net.client("alice") as alice:
        issue(alice, number=5)
    assert rows(net)["sae-alice", "sae-bob"]["issued"] == 14
    # For people and for programs.
    status, out, _ = ctl(net, "accounting", where=over_https(net, "admin-viewer"))
    assert status == 0 and "sae-alice" in out
    status, out, _ = ctl(net, "--csv", "accounting")
    table = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and sum(int(r["issued"]) for r in table if r["sae"] == "sae-alice") == 14
    _, out, _ = ctl(net, "--json", "accounting")
    assert [[str(r[k]) for k in table[0]] for r in json.loads(out)["rows"]] == [list(r.values()) for r in table]
    assert rows(net, **{"from": "2001-01-01", "to": "2001-12-31"}) == {}


@pytest.fixture(scope="module")
def steady(make_shared):
    return make_shared(admin=True, stock=1)


@pytest.mark.parametrize("query", ["from=yesterday", "from=2026-02-30", "to=2026-1-1", "from=2030-01-02&to=2030-01-01",
                                   "from=1970-01-01&to=2090-01-01", "format=xml", "sae=x"])
def test_what_cannot_be_asked(steady, query):
    answer = local(steady).request("GET", f"/api/v1/accounting?{query}")
    assert answer.status == 400 and answer.message
    assert ctl(steady, "--from", "nonsense", "accounting")[0] == 1


def written(net):
    """Keys issued as the database has them. Nobody asks for the totals, which would write them, too."""
    try:
        ((issued,),) = database(net, "kme-a", "SELECT total(issued) FROM account")
    except sqlite3.Error:
        return 0  # copied while it was written
    return issued


def test_a_killed_gateway_lost_no_more_than_its_last_second(net):
    with net.client("alice") as alice:
        issue(alice, number=40)
        wait_for("the totals to be written, as they are every second", lambda: written(net) >= 40, 20, 0.1)
        issue(alice, number=3)
    net.gateways["kme-a"].kill()
    net.restart("kme-a")
    assert 40 <= rows(net)["sae-alice", "sae-bob"]["issued"] <= 43


def burst(client):
    """How many keys it gets, one by one, until a rate stops it; not merely an empty pool."""
    got, end = 0, time.monotonic() + 120
    while time.monotonic() < end:
        answer = client.enc("sae-bob")
        if answer.status == 503 and answer.message == "rate limit exceeded":
            return got
        got += answer.status == 200
    raise TimeoutError(f"no rate stopped it after {got} keys")


RATE = 1  # keys per second; the burst is as many as one request may have
BURST = 20


def limited(name, config):
    config["limits"] = {"sae_keys_per_s": RATE}
    for rule in config["policy"]:
        rule["max_keys"] = BURST


def test_no_restart_gives_more_than_the_burst(make_network):
    net = make_network(admin=True, stock=200, tweak=limited)
    begun = time.monotonic()
    with net.client("alice") as alice:
        got = burst(alice)
    assert BURST <= got
    for end in ("stop", "kill"):
        getattr(net.gateways["kme-a"], end)()
        net.restart("kme-a")
        with net.client("alice") as alice:
            got += burst(alice)
        # Never more than the burst and what came in since the first key.
        assert got <= BURST + RATE * (time.monotonic() - begun) + 1, end
    hit = local(net).get("/api/v1/limits")["hit"]
    assert [h["sae"] for h in hit] == ["sae-alice"]
    assert rows(net)["sae-alice", "sae-bob"]["limited"] >= 1
