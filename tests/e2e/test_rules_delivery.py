# SPDX-License-Identifier: Apache-2.0
"""SOUNDNESS rules 10 and 13 to 15: delivery, authorisation, transferred keys, fair shares."""

import threading
import time

from links import exchange, issue, not_found, refused
from processes import wait_for

SOME_ID = "a4b5c6d7-0000-8000-8000-0123456789ab"


def at_once(network, sae, asks):
    """The answers to several questions asked at the same moment on connections of their own."""
    barrier = threading.Barrier(len(asks))
    answers = [None] * len(asks)

    def run(n):
        with network.client(sae) as client:
            client.status("sae-alice" if sae != "alice" else "sae-bob")
            barrier.wait()
            answers[n] = asks[n](client)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(asks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# --- 10: at most once, and the others wait for the first ---------------------------------------------

def test_rule_10_of_many_requests_for_one_id_exactly_one_gets_the_key(network, alice):
    for _ in range(10):
        (key,) = issue(alice)
        answers = at_once(network, "bob", [lambda c: c.get_dec("sae-alice", key[0])] * 8)
        assert [a.keys() for a in answers if a.status == 200] == [[key]]
        assert all(not_found(a) for a in answers if a.status != 200)


def test_rule_10_overlapping_requests_are_all_or_nothing(network, alice):
    for _ in range(10):
        keys = issue(alice, number=3)
        ids = [i for i, _ in keys]
        asks = [lambda c: c.dec("sae-alice", ids[0], ids[1]), lambda c: c.dec("sae-alice", ids[1], ids[2]),
                lambda c: c.dec("sae-alice", ids[2], ids[0])]
        answers = at_once(network, "bob", asks)
        assert sorted(a.status for a in answers) == [200, 400, 400]
        (given,) = [a.keys() for a in answers if a.status == 200]
        assert all(pair in keys for pair in given)
        (left,) = [k for k in keys if k not in given]
        with network.client("bob") as bob:
            assert bob.get_dec("sae-alice", left[0]).keys() == [left]


# --- 13: 401 before 400, also for what is gone ----------------------------------------------------------

def test_rule_13_a_stranger_gets_401_for_consumed_ids_too(alice, bob, erin, mallory):
    (key,) = issue(alice)
    assert bob.get_dec("sae-alice", key[0]).status == 200
    assert refused(erin.get_dec("sae-alice", key[0]))
    assert refused(mallory.get_dec("sae-alice", key[0]))
    assert not_found(bob.get_dec("sae-alice", key[0]))


def test_rule_13_the_wrong_master_with_the_right_slave_is_401(alice, bob, network):
    (key,) = issue(alice)
    assert refused(bob.get_dec("sae-dave", key[0]))    # same home, another SAE
    assert refused(bob.get_dec("sae-erin", key[0]))    # another home
    assert bob.get_dec("sae-alice", key[0]).keys() == [key]


def test_rule_13_401_beats_400_in_a_request_of_several_keys(alice, bob, erin):
    (bobs,), (erins,) = issue(alice), issue(alice, "sae-erin")
    for ids in ((SOME_ID, bobs[0]), (bobs[0], SOME_ID), (erins[0], SOME_ID, bobs[0])):
        assert refused(erin.dec("sae-alice", *ids))
    assert not_found(erin.dec("sae-alice", erins[0], SOME_ID))
    assert erin.get_dec("sae-alice", erins[0]).keys() == [erins]
    assert bob.get_dec("sae-alice", bobs[0]).keys() == [bobs]


def test_rule_13_a_changed_bit_makes_the_id_unknown(alice, bob):
    """Any bit of the ID is under a tag: a changed one is 400 or 401, never a key."""
    (key,) = issue(alice)
    number = int(key[0].replace("-", ""), 16)
    for bit in range(0, 128):
        text = f"{number ^ (1 << bit):032x}"
        changed = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        assert bob.get_dec("sae-alice", changed).status in (400, 401)
    assert bob.get_dec("sae-alice", key[0]).keys() == [key]


# --- 14: transferred keys --------------------------------------------------------------------------------

def test_rule_14_transferred_keys_are_for_their_initiator_and_target(network, alice, dave, bob):
    (key,) = issue(alice, "sae-dave")
    assert refused(dave.get_dec("sae-bob", key[0]))
    assert alice.get_dec("sae-dave", key[0]).status in (400, 401)
    assert dave.get_dec("sae-alice", key[0]).keys() == [key]
    assert not_found(dave.get_dec("sae-alice", key[0]))


def test_rule_14_an_id_that_is_no_transfer_is_decoded(network, alice, dave, bob):
    """dave fetches a transferred and a decoded key in one request, each from its own place."""
    (local,) = issue(alice, "sae-dave")
    (remote,) = issue(bob, "sae-dave")
    assert dave.get_dec("sae-alice", local[0]).keys() == [local]
    assert dave.get_dec("sae-bob", remote[0]).keys() == [remote]


def test_rule_14_transferred_keys_survive_a_crash_and_are_delivered_once(make_network):
    net = make_network()
    with net.client("alice") as alice:
        keys = issue(alice, "sae-dave", number=4)
        shared = issue(alice, "sae-bob", number=2, additional_slave_SAE_IDs=["sae-dave"])
    with net.client("dave") as dave:
        assert dave.get_dec("sae-alice", keys[0][0]).keys() == keys[:1]
        net.gateways["kme-a"].kill()
    net.restart("kme-a")
    with net.client("dave") as dave, net.client("bob") as bob:
        assert not_found(dave.get_dec("sae-alice", keys[0][0]))
        assert dave.dec("sae-alice", *(i for i, _ in keys[1:])).keys() == keys[1:]
        assert dave.dec("sae-alice", *(i for i, _ in shared)).keys() == shared
        assert bob.dec("sae-alice", *(i for i, _ in shared)).keys() == shared


# --- 15: one SAE does not starve the link -----------------------------------------------------------------

def test_rule_15_what_a_pair_may_be_issued_within_the_fetch_window_is_limited(make_network):
    net = make_network(tweak=lambda name, config: config.update(limits={"pair_chunks": 100}), stock=500,
                       pool={"ready_chunks": 2048, "inbound_chunks": 65536, "issue_s": 60, "fetch_s": 8})
    with net.client("alice") as alice, net.client("dave") as dave, net.client("bob") as bob:
        assert alice.enc("sae-bob", number=60).status == 200
        over = alice.enc("sae-bob", number=60)
        assert over.status == 503 and 1 <= int(over.headers["Retry-After"]) <= 9
        assert alice.enc("sae-bob", number=40).status == 200
        assert alice.enc("sae-bob").status == 503
        keys = issue(dave, "sae-bob", number=50)  # another pair is not touched
        assert bob.dec("sae-dave", *(i for i, _ in keys)).keys() == keys
        time.sleep(9)
        assert alice.enc("sae-bob", number=50).status == 200


def test_rule_15_part_of_the_pool_is_kept_for_other_pairs(make_network):
    """alice takes all she can get and nothing is fetched; dave still gets keys."""
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 65536, "reserve_percent": 20}, stock=500)
    net.outage(True)
    with net.client("alice") as alice, net.client("dave") as dave, net.client("bob") as bob:
        while (answer := alice.enc("sae-bob", number=16)).status == 200:
            pass
        assert answer.status == 503
        keys = issue(dave, "sae-bob", number=50)
        assert bob.dec("sae-dave", *(i for i, _ in keys)).keys() == keys


def test_rule_15_key_rates_per_sae_are_limited(make_network):
    net = make_network(tweak=lambda name, config: config.update(limits={"sae_keys_per_s": 50}), stock=500)
    with net.client("alice") as alice, net.client("dave") as dave:
        got, refused_, begin = 0, 0, time.monotonic()
        while (took := time.monotonic() - begin) < 4 or got < 100 or not refused_:
            assert took < 60, (got, refused_)
            answer = alice.enc("sae-bob", number=5)
            got += 5 if answer.status == 200 else 0
            if answer.status != 200:
                refused_ += 1
                assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
                assert dave.enc("sae-bob").status == 200
                time.sleep(0.1)
        assert got <= 50 * (time.monotonic() - begin + 1) + 128  # and a burst of one largest request
    log = net.folder / "kme-a/audit.log"
    wait_for("a line of what was refused", lambda: [x for x in log.read_text().splitlines() if '"caller":"sae-alice"' in x
                                                    and '"reason":"rate limit exceeded: ' in x], 20)


def test_rule_15_request_rates_per_sae_are_limited(make_network):
    net = make_network(tweak=lambda name, config: config.update(limits={"sae_requests_per_s": 20}))
    with net.client("alice") as alice, net.client("dave") as dave:
        answers, begin = [], time.monotonic()
        while len(answers) < 200 or 503 not in answers:
            answers.append(alice.status("sae-bob").status)
            assert time.monotonic() - begin < 60, answers
        assert set(answers) == {200, 503}
        assert answers.count(200) <= 20 * (time.monotonic() - begin + 1) + 20  # and a second's worth at once
        assert dave.status("sae-bob").status == 200
        time.sleep(2)
        assert alice.status("sae-bob").status == 200


def test_rule_15_a_full_far_end_stops_the_owners_pool(make_network):
    """Nobody fetches at KME-B: it holds no more than configured and says so; alice meets 503, and
    what was issued stays fetchable."""
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 1024, "issue_s": 600, "fetch_s": 600})
    issued = []
    with net.client("alice") as alice, net.client("bob") as bob:
        end = time.monotonic() + 180
        empty = 0
        while empty < 30 and time.monotonic() < end:
            answer = alice.enc("sae-bob", number=16)
            if answer.status == 503:
                empty += 1
                time.sleep(0.1)
                continue
            empty = 0
            issued += answer.keys()
        assert empty == 30 and len(issued) <= 1024 + 256
        for n in range(0, len(issued), 64):
            part = issued[n:n + 64]
            assert bob.dec("sae-alice", *(i for i, _ in part)).keys() == part
        issue(alice, number=16, timeout_s=30)  # there is room again
    exchange(net)
