# SPDX-License-Identifier: Apache-2.0
"""SAEs and policy rules that operators make and take away while the gateway runs."""

import json
import resource

import pytest

from admin import ctl, local, over_https
from links import issue
from network import make_pki
from test_acts import acted, hup


@pytest.fixture
def net(make_network):
    made = make_network(admin=True, stock=200)
    make_pki(made.pki, "frank")
    return made


@pytest.fixture(scope="module")
def steady(make_shared):
    return make_shared(admin=True, stock=1)


def again(net):
    """Stopped in order and started anew."""
    net.gateways["kme-a"].stop()
    net.restart("kme-a")


FRANK = ["sae", "add", "sae-frank", "uri=urn:sae:sae-frank"]
RULE = ["rule", "add", "frank", "sae-frank", "sae-bob,sae-erin", "max_keys=10", "both_ways=false"]


def origins(net, what="saes"):
    return {s["id" if what == "saes" else "name"]: s["origin"] for s in local(net).get(f"/api/v1/{what}")[what]}


def test_an_sae_and_its_rule_come_and_go(net):
    with net.client("frank", at="kme-a") as frank, net.client("bob") as bob:
        assert frank.status("sae-bob").status == 401
        assert ctl(net, *FRANK)[:2] == (0, "done: add-sae\n")
        assert frank.enc("sae-bob").status == 401  # known, but nothing is allowed
        assert ctl(net, *RULE)[:2] == (0, "done: add-rule\n")
        assert len(issue(frank, number=10)) == 10
        assert frank.enc("sae-bob", number=11).status == 400
        # The far end learns where it lives by its own rule and directory, or not at all: here it has neither.
        assert bob.enc("sae-frank").status in (400, 401)
        assert origins(net)["sae-frank"] == "run-time" and origins(net)["sae-alice"] == "file"
        assert origins(net, "rules")["frank"] == "run-time"
        _, out, _ = ctl(net, "rules")
        assert [x.split()[:3] for x in out.splitlines() if x.startswith("frank")] == [["frank", "run-time", "sae-frank"]]
    # A restart, a kill and a reload leave both, and who is suspended.
    assert ctl(net, "suspend", "sae-frank")[0] == ctl(net, "suspend", "sae-bob", "sae-alice")[0] == 0
    again(net)
    assert ctl(net, "resume", "sae-frank")[0] == 0
    with net.client("frank", at="kme-a") as frank, net.client("alice") as alice:
        assert len(issue(frank)) == 1
        assert alice.enc("sae-bob").status == 401
    assert ctl(net, "suspend", "sae-frank")[:2] == (0, "done: suspend\n")
    net.gateways["kme-a"].kill()  # at once
    net.restart("kme-a")
    assert "reloaded" in hup(net)
    saes = local(net).get("/api/v1/saes")
    assert {s["id"] for s in saes["saes"] if s["suspended"]} == {"sae-frank"} and saes["suspended_pairs"] == [["sae-bob", "sae-alice"]]
    with net.client("frank", at="kme-a") as frank:
        assert frank.enc("sae-bob").status == 401
        assert ctl(net, "resume", "sae-frank")[0] == ctl(net, "resume", "sae-alice", "sae-bob")[0] == 0
        assert len(issue(frank)) == 1
        assert ctl(net, "rule", "remove", "frank")[:2] == (0, "done: remove-rule\n")
        assert frank.enc("sae-bob").status == 401 and frank.status("sae-bob").status == 401
        assert ctl(net, "sae", "remove", "sae-frank")[:2] == (0, "done: remove-sae\n")
        assert frank.request("GET", "/openapi.yaml").status == 401  # on the connection that was open
        assert "sae-frank" not in origins(net)
        # Suspended and taken away: it stays so, is shown, and can be resumed.
        assert ctl(net, *FRANK)[0] == ctl(net, "suspend", "sae-frank")[0] == ctl(net, "sae", "remove", "sae-frank")[0] == 0
    again(net)
    assert "SAE sae-frank is suspended" in ctl(net, "alarms")[1]
    assert ctl(net, "suspend", "sae-frank")[0] == 1 and ctl(net, "resume", "sae-frank")[0] == 0
    assert ctl(net, "resume", "sae-frank")[0] == 1 and "suspended" not in ctl(net, "alarms")[1]
    assert "sae-frank" not in origins(net) and "frank" not in origins(net, "rules")
    with net.client("frank", at="kme-a") as frank:
        assert frank.status("sae-bob").status == 401
    for reason, on in (("add sae", "sae-frank"), ("add rule", "frank"), ("remove rule", "frank"), ("remove sae", "sae-frank")):
        assert acted(net, reason)[0]["peer"] == on


def test_an_sae_works_at_the_far_end_too(net):
    """One at each node, each with a rule, and the other's home in the file."""
    net.write_config("kme-b", lambda c: c["directory"].append({"sae": "sae-frank", "kme": "KME-A"}))
    assert local(net, "kme-b").post("/api/v1/reload").status == 200
    assert ctl(net, *FRANK)[0] == 0
    for node in ("kme-a", "kme-b"):
        assert ctl(net, "rule", "add", "f", "sae-frank", "sae-bob", node=node)[0] == 0
    with net.client("frank", at="kme-a") as frank, net.client("bob") as bob:
        keys = issue(frank, number=5)
        assert bob.dec("sae-frank", *(i for i, _ in keys)).keys() == keys
        keys = issue(bob, "sae-frank", 5)
        assert frank.dec("sae-bob", *(i for i, _ in keys)).keys() == keys


@pytest.mark.parametrize("arguments,status,said", [
    (["sae", "add", "sae-alice", "uri=urn:sae:other"], 1, "sae-alice stands in the configuration file"),
    (["sae", "add", "sae-new", "uri=urn:sae:sae-alice"], 1, "certificate.uri: \"urn:sae:sae-alice\" is already in line"),
    (["sae", "add", "sae-new", "urj=urn:sae:x"], 1, "is \"uri\" meant?"),
    (["sae", "add", "sae-new", "uri=urn:x", "dns=y"], 1, "run-time saes sae-new: certificate"),
    (["sae", "add", "sae new", "uri=urn:x"], 1, "run-time saes sae new: id"),
    (["sae", "add", "x" * 129, "uri=urn:x"], 1, "id"),
    (["sae", "add", "sae-new"], 2, "usage: qkdgatectl sae"), (["sae", "ad", "sae-new", "uri=x"], 2, "is add meant?"),
    (["sae", "add", "sae-new", "uri"], 2, "NAME=VALUE"),
    (["sae", "remove", "sae-alice"], 1, "take it out there, and reload"),
    (["sae", "remove", "sae-nobody"], 1, "was not added at run time"),
    (["rule", "add", "r", "sae-alice", "sae-bob", "max_keys=0"], 1, "run-time policy r: max_keys: "),
    (["rule", "add", "r", "sae-alice", "sae-bob", "max_key=1"], 1, "is \"max_keys\" meant?"),
    (["rule", "add", "r", "sae-alice", "sae-bob", "min_key_bits=512", "max_key_bits=256"], 1, "min_key_bits"),
    (["rule", "add", "r!", "sae-alice", "sae-bob"], 1, "name: give"), (["rule", "add", "r", "sae-alice", ""], 1, "slaves"),
    (["rule", "remove", "r"], 1, "was not added"), (["rule", "remove"], 2, "usage:"),
    (["--json", "sae", "add", "sae-$HOME", "uri=urn:sae:${HOME}"], 0, "")])
def test_what_is_refused_changes_nothing(steady, arguments, status, said):
    net = steady
    before = local(net).get("/api/v1/rules"), origins(net)
    got, out, err = ctl(net, *arguments)
    assert got == status and said in err, (got, out, err)
    if status == 0:  # no variable of the gateway's environment is put in
        assert "sae-$HOME" in origins(net)
        assert ctl(net, "sae", "remove", "sae-$HOME")[0] == 0
    assert (local(net).get("/api/v1/rules"), origins(net)) == before


def test_twice_is_refused_and_so_is_who_may_only_look(net):
    assert ctl(net, *FRANK)[0] == 0
    status, _, err = ctl(net, *FRANK)
    assert status == 1 and "was added already" in err
    status, _, err = ctl(net, "sae", "add", "sae-grace", "uri=urn:sae:sae-frank")
    assert status == 1 and "is already in run-time saes sae-frank" in err
    for arguments in (FRANK, RULE, ["sae", "remove", "sae-frank"]):
        status, _, err = ctl(net, *arguments, where=over_https(net, "admin-viewer"))
        assert status == 4 and "may look" in err
    acted(net, "add sae: refused")
    for body in ("", "[]", "{", {"certificate": {"uri": "urn:x"}}, {"id": 5}, {"id": "sae-x"}, {"id": "sae-x", "certificate": 3},
                 {"id": "sae-x", "certificate": {"uri": "urn:x"}, "admin": True}, {"id": "sae-x", "certificate": {"uri": "\u0000"}}):
        answer = local(net).post("/api/v1/saes", body)
        assert answer.status == 400 and answer.message, (body, answer.body)
    assert local(net).post("/api/v1/saes", "x" * 70000).status == 400


def test_a_file_that_contradicts_is_refused_and_left_out_at_a_start(net):
    assert ctl(net, *FRANK)[0] == 0 and ctl(net, *RULE)[0] == 0
    net.write_config("kme-a", lambda c: c["saes"].append(
        {"id": "sae-frank", "certificate": {"uri": "urn:sae:elsewhere"}}))
    said = hup(net)
    assert "reload_refused" in said and "run-time saes sae-frank: id" in said and "is already in line" in said
    with net.client("frank", at="kme-a") as frank:
        assert len(issue(frank)) == 1
    again(net)
    lines = net.gateways["kme-a"].lines("event=entry_left_out")
    assert len(lines) == 1 and "name=sae-frank" in lines[0]
    with net.client("frank", at="kme-a") as frank:
        assert frank.status("sae-bob").status == 401  # the file's goes first, and has another certificate
    answer = local(net).get("/api/v1/saes")
    assert answer["left_out"] == ["sae-frank"] and origins(net)["sae-frank"] == "file"
    assert local(net).get("/api/v1/rules")["left_out"] == [] and origins(net, "rules")["frank"] == "run-time"
    assert ctl(net, "sae", "remove", "sae-frank")[0] == 0  # the one that was left out
    assert local(net).get("/api/v1/saes")["left_out"] == []
    assert "reloaded" in hup(net)


def test_what_is_added_goes_with_what_is_in_force(net):
    """Not with what the file holds by now."""
    net.config_file("kme-a").write_text("nonsense: [")
    assert ctl(net, *FRANK)[0] == 0 and ctl(net, *RULE)[0] == 0
    with net.client("frank", at="kme-a") as frank:
        assert len(issue(frank)) == 1
    _, out, _ = ctl(net, "--json", "saes")
    assert {"sae-alice", "sae-frank"} <= {s["id"] for s in json.loads(out)["saes"]}
    net.write_config("kme-a")
    assert "reloaded" in hup(net)


def test_a_suspension_that_cannot_be_kept_is_in_force_all_the_same(steady):
    """While nothing can be written, whoever is suspended stays so, and who is to be is so at once."""
    net, pid = steady, steady.gateways["kme-a"].pid

    def writable(on):
        size = resource.RLIM_INFINITY if on else 4096
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    with net.client("dave") as dave:
        try:
            writable(False)
            status, _, err = ctl(net, "suspend", "sae-dave")
            assert status != 0 and "suspended, but only until the gateway stops" in err
            assert dave.enc("sae-bob").status == 401
            assert "SAE sae-dave is suspended" in ctl(net, "alarms")[1]
            writable(True)
            assert ctl(net, "suspend", "sae-dave")[0] == 0  # once more: now it is kept
            writable(False)
            status, _, err = ctl(net, "resume", "sae-dave")
            assert status != 0 and "still suspended" in err
            assert dave.enc("sae-bob").status == 401
        finally:
            writable(True)
    again(net)
    with net.client("dave") as dave:
        assert dave.enc("sae-bob").status == 401
        assert ctl(net, "resume", "sae-dave")[0] == 0
        assert len(issue(dave)) == 1
