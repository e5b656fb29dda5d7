# SPDX-License-Identifier: Apache-2.0
"""SOUNDNESS rules 4 to 7, seen from between the gateways: a middleman who holds both their
certificates reads, changes and withholds their messages, but does not know the key."""

import json
import random
import re
import time

from between import DROP
from ledger import Ledger
from links import POOL, SEGMENT, exchange, issue, over
from processes import wait_for
from source004 import GET
from topology import pair

BATCH = "new_key_batch"


def tapped(make_network, make_middleman, start=True, **options):
    """A pair where everything that KME-A sends to KME-B passes a middleman."""
    net = make_network(pair(segment_chunks=SEGMENT, rate_bps=2_000_000), pool=POOL, start=False, **options)
    middleman = make_middleman(net.endpoints["kme-b/kms"], "kme-b", "kme-a")
    net._neighbour_urls[("kme-a", "KME-B")] = middleman.url
    net.write_config("kme-a")
    if start:
        net.start()
        net.wait_stock("alice", "bob")
    return net, middleman


def keep_passing(net, ledger, until, timeout_s=40):
    """Passes keys from alice to bob until a condition holds."""
    with net.client("alice") as alice, net.client("bob") as bob:
        def step():
            keys = issue(alice, number=8, timeout_s=timeout_s)
            ids = [i for i, _ in keys]
            ledger.issue(keys)
            got = bob.dec("sae-alice", *ids)
            assert got.status == 200, got.body
            ledger.deliver(ids, got.keys())
            return until()
        wait_for("the condition", step, timeout_s, 0)


# --- 4: what the request's MAC covers ---------------------------------------------------------------

def test_rule_04_any_change_of_a_confirmation_request_is_refused(make_network, make_middleman):
    """Each member of new_key_batch changed in turn, in every second segment: the far end confirms
    none of them; what it called a mismatch it never confirms later; the others are confirmed."""
    net, middleman = tapped(make_network, make_middleman)
    ledger = Ledger()
    changed = {}  # (epoch, segment) -> member

    def change(name, body):
        fields = json.loads(body) if name == BATCH else {}
        if not fields or fields["segment"] % 2:
            return body
        key = (fields["epoch"], fields["segment"])
        left = [f for f in CHANGES if f not in changed.values()]
        if key not in changed and left:
            changed[key] = left[0]
        tries = len([e for e in middleman.of(BATCH) if key_of(e) == key])
        if key not in changed or tries >= 3:
            return body
        return json.dumps(CHANGES[changed[key]](fields)).encode()

    def altered():
        return [e for e in middleman.of(BATCH) if e.sent != e.request]

    middleman.before = change
    keep_passing(net, ledger, lambda: len({key_of(e) for e in altered()}) == len(CHANGES), 100)
    middleman.before = lambda name, body: body
    assert not [e for e in altered() if is_confirmed(e)]
    lost = set()
    for e in middleman.of(BATCH):
        assert not (is_confirmed(e) and key_of(e) in lost)
        if e.answer and b"mismatch" in e.answer:
            lost.add(key_of(e))
    ledger.check()
    exchange(net)


def key_of(e):
    fields = json.loads(e.request)
    return fields["epoch"], fields["segment"]


def is_confirmed(e):
    return bool(e.answer) and b'"mac"' in e.answer


def flipped(hex_text):
    return ("0" if hex_text[0] != "0" else "1") + hex_text[1:]


def with_(name, change):
    return lambda fields: {**fields, name: change(fields[name])}


CHANGES = {
    "mac": with_("mac", flipped),
    "first_index": with_("first_index", lambda v: v + 1),
    "count": with_("count", lambda v: v - 1),
    "issue_s": with_("issue_s", lambda v: v + 1),
    "fetch_s": with_("fetch_s", lambda v: v + 1),
    "mark": with_("mark", lambda v: v + 1),
}


# --- 5: a one-time key signs one message ---------------------------------------------------------------

def test_rule_05_retries_are_byte_identical_and_so_are_their_answers(make_network, make_middleman):
    net, middleman = tapped(make_network, make_middleman)
    ledger = Ledger()
    withheld = {}

    def withhold(name, body, status, answer):
        if name == BATCH and b"mac" in answer:
            segment = json.loads(body)["segment"]
            withheld[segment] = withheld.get(segment, 0) + 1
            if segment % 3 == 0 and withheld[segment] < 3:
                return DROP
        return answer

    middleman.after = withhold
    keep_passing(net, ledger, lambda: sum(n >= 3 for n in withheld.values()) >= 2, 90)
    by_segment = {}
    for e in middleman.of(BATCH):
        by_segment.setdefault(key_of(e), []).append(e)
    assert any(len(es) >= 3 for es in by_segment.values())
    for es in by_segment.values():
        assert len({e.request for e in es}) == 1
        assert len({e.answer for e in es if is_confirmed(e)}) <= 1
    ledger.check()


def test_rule_05_retries_over_a_crash_of_the_owner_are_byte_identical(make_network, make_middleman):
    """Answers are withheld, KME-A is killed: what it sends again is what it sent before."""
    net, middleman = tapped(make_network, make_middleman)
    middleman.after = lambda name, body, status, answer: DROP if name == BATCH else answer
    ledger = Ledger()
    mark = len(middleman.exchanges)
    with net.client("alice") as alice:
        def used():
            answer = alice.enc("sae-bob", number=8)
            if answer.status == 200:
                ledger.issue(answer.keys())
            return [e for e in middleman.exchanges[mark:] if e.name == BATCH]
        wait_for("a confirmation request whose answer is withheld", used, 30)
    time.sleep(0.5)
    net.gateways["kme-a"].kill()
    before = {key_of(e): e.request for e in middleman.exchanges[mark:] if e.name == BATCH}
    middleman.after = lambda name, body, status, answer: answer
    mark = len(middleman.exchanges)
    net.restart("kme-a")

    def again():
        return [e for e in middleman.exchanges[mark:] if e.name == BATCH and key_of(e) in before]
    wait_for("the request again, which the far end still answers", lambda: any(map(is_confirmed, again())), 30)
    assert all(e.request == before[key_of(e)] for e in again())
    net.wait_stock("alice", "bob", timeout_s=40)
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=20)
        ledger.issue(keys)
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    ledger.check()


def test_rule_05_a_forged_answer_confirms_nothing(make_network, make_middleman):
    """The middleman confirms with a tag of its own making: the owner issues none of that segment."""
    net, middleman = tapped(make_network, make_middleman)
    middleman.after = lambda name, body, status, answer: (
        re.sub(rb'"mac":\s*"[0-9a-f]+"', b'"mac":"' + b"ab" * 16 + b'"', answer) if name == BATCH else answer)
    ledger = Ledger()
    mark = len(middleman.exchanges)
    with net.client("alice") as alice, net.client("bob") as bob:
        end = time.monotonic() + 120
        empty = 0
        while time.monotonic() < end and empty < 20:
            answer = alice.enc("sae-bob", number=4)
            if answer.status == 503:
                empty += 1
                time.sleep(0.1)
                continue
            keys = answer.keys()
            ids = [i for i, _ in keys]
            ledger.issue(keys)
            ledger.deliver(ids, bob.dec("sae-alice", *ids).keys())
    assert empty == 20, "keys flow although no segment can be confirmed"
    assert [e for e in middleman.exchanges[mark:] if e.name == BATCH]
    ledger.check()
    middleman.after = lambda name, body, status, answer: answer
    net.wait_stock("alice", "bob", timeout_s=60)
    exchange(net)


def test_rule_05_full_and_pending_only_delay(make_network, make_middleman):
    """"full" and "not here yet" carry no tag: the owner waits and sends the same bytes again."""
    net, middleman = tapped(make_network, make_middleman)
    ledger = Ledger()
    delayed = {}

    def delay(name, body):
        if name != BATCH:
            return body
        key = (json.loads(body)["epoch"], json.loads(body)["segment"])
        delayed[key] = delayed.get(key, 0) + 1
        return DROP if delayed[key] == 1 and key[1] % 2 else body

    middleman.before = delay
    keep_passing(net, ledger, lambda: sum(n > 1 for n in delayed.values()) >= 3, 60)
    ledger.check()


# --- 6: use is part of what is authenticated ------------------------------------------------------------

def test_rule_06_the_use_of_a_segment_cannot_be_changed_on_the_way(make_network, make_middleman):
    net, middleman = tapped(make_network, make_middleman)
    ledger = Ledger()
    changed = set()

    def change(name, body):
        fields = json.loads(body) if name == BATCH else {}
        if not fields or not fields["segment"] or fields["segment"] % 3:
            return body
        key = (fields["epoch"], fields["segment"])
        if key not in changed and (len(changed) >= 2 or key in map(key_of, middleman.of(BATCH))):
            return body
        changed.add(key)
        return json.dumps({**fields, "use": OTHER_USE[fields["use"]]}).encode()

    middleman.before = change
    keep_passing(net, ledger, lambda: len(changed) >= 2, 60)
    keep_passing(net, ledger, lambda: len(ledger.delivered) > 2 * POOL["ready_chunks"], 60)
    assert not [e for e in middleman.of(BATCH) if is_confirmed(e) and key_of(e) in changed]
    ledger.check()


OTHER_USE = {"application": "pad", "pad": "mac", "mac": "application"}


# --- 7: a key lies in one segment, off reserved chunks ---------------------------------------------------

def test_rule_07_a_key_lies_in_one_segment_off_reserved_chunks(make_source, make_network):
    """Over a link that the test plays every chunk is known: where each key was taken from shows."""
    source = make_source()
    net = over(source, make_network, stock=100)
    rng = random.Random(7)
    taken = {}
    with net.client("alice") as alice, net.client("bob") as bob:
        for _ in range(60):
            size = rng.choice((64, 256, 264, 512, 1000, 1024, 4096))
            ((key_id, key),) = issue(alice, size=size)
            assert bob.get_dec("sae-alice", key_id).keys() == [(key_id, key)]
            ksid, indexes = source.locate(key)
            assert len({i // SEGMENT for i in indexes}) == 1, (size, indexes)
            assert not {i % SEGMENT for i in indexes} & {SEGMENT - 2, SEGMENT - 1}, (size, indexes)
            assert not set(indexes) & taken.setdefault(ksid, set())
            taken[ksid].update(indexes)
    for ksid, indexes in taken.items():  # the root: at least 64 bytes of the first segment
        assert min(indexes) >= 2


def test_rule_07_the_largest_key_is_at_most_half_a_segment(make_source, make_network):
    source = make_source()

    def large(_, config):
        for rule in config["policy"]:
            rule["max_key_bits"] = 32760

    net = over(source, make_network, stock=50, segment_chunks=64, tweak=large)
    with net.client("alice") as alice, net.client("bob") as bob:
        limit = alice.status("sae-bob").json["max_key_size"]
        assert limit <= 64 * 32 * 8 // 2
        keys = issue(alice, size=limit)
        assert bob.get_dec("sae-alice", keys[0][0]).keys() == keys
        for size in (limit + 8, 32760):
            answer = alice.enc("sae-bob", size=size)
            assert answer.status == 400 and "size" in answer.message


def test_rule_07_4095_bytes_are_the_most(make_source, make_network):
    source = make_source(chunk_size=64)

    def large(_, config):
        for rule in config["policy"]:
            rule["max_key_bits"] = 32760

    net = over(source, make_network, stock=50, segment_chunks=256, tweak=large)
    with net.client("alice") as alice, net.client("bob") as bob:
        assert alice.status("sae-bob").json["max_key_size"] == 4095 * 8
        keys = issue(alice, size=4095 * 8)
        assert bob.get_dec("sae-alice", keys[0][0]).keys() == keys
        assert source.locate(keys[0][1])
        assert len(source.seen(GET)) > 0
