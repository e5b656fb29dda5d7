# SPDX-License-Identifier: Apache-2.0
"""SOUNDNESS rules 1 to 3, 8, 9, 11 and 12: epochs, crashes, rollback, time, what rests on disk."""

import shutil
import struct
import time

from ledger import Ledger
from links import SEGMENT, database, exchange, issue, not_found, over, refused
from processes import wait_for
from source004 import CLOSE, GET, NULL, OPEN
from topology import line


# --- 1: epochs fill, drain, end ------------------------------------------------------------------

def test_rule_01_an_epoch_drains_at_its_age_and_what_was_issued_stays_fetchable(make_source, make_network):
    source = make_source()
    net = over(source, make_network, pool={"ready_chunks": 512, "inbound_chunks": 8192, "epoch_age_s": 8,
                                           "issue_s": 120, "fetch_s": 120})
    with net.client("alice") as alice, net.client("bob") as bob:
        old = issue(alice, number=10)
        first = source.locate(old[0][1])[0]

        def drawn_from_another():
            keys = issue(alice, number=20)
            assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
            return source.locate(keys[0][1])[0] != first
        wait_for("a key from a new epoch", drawn_from_another, 40, 0.1)
        assert bob.dec("sae-alice", *(i for i, _ in old)).keys() == old


def test_rule_01_an_epoch_is_destroyed_after_its_windows(make_source, make_network):
    source = make_source()
    net = over(source, make_network, pool={"ready_chunks": 256, "inbound_chunks": 8192, "epoch_age_s": 6,
                                           "issue_s": 4, "fetch_s": 4})
    with net.client("alice") as alice, net.client("bob") as bob, net.client("erin") as erin:
        (old,) = issue(alice)
        assert refused(erin.get_dec("sae-alice", old[0]))
        # While its epoch lives a stranger is told 401; once it is destroyed nobody knows the ID.
        wait_for("the end of the epoch", lambda: not_found(erin.get_dec("sae-alice", old[0])), 60, 0.5)
        assert not_found(bob.get_dec("sae-alice", old[0]))
        keys = issue(alice, number=5)
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys


# --- 2: no ID before the root is confirmed; IDs belong to one direction ---------------------------

def test_rule_02_no_key_is_issued_before_the_first_segment_is_confirmed(make_source, make_network):
    source = make_source()
    net = over(source, make_network, start=False)
    net.gateways["kme-a"].start()
    net.gateways["kme-a"].wait_ready()
    time.sleep(3)
    with net.client("alice") as alice:
        assert alice.status("sae-bob").json["stored_key_count"] == 0
        assert alice.enc("sae-bob").status == 503
    net.restart("kme-b")
    net.wait_stock("alice", "bob", timeout_s=40)
    net.wait_stock("bob", "alice", timeout_s=40)
    exchange(net)


def test_rule_02_an_id_of_one_direction_or_epoch_says_nothing_in_another(make_network):
    net = make_network()
    with net.client("alice") as alice, net.client("bob") as bob:
        (a_key,), (b_key,) = issue(alice), issue(bob, "sae-alice")
        # alice as slave of bob asks for the ID that she issued herself as master, and vice versa.
        assert alice.get_dec("sae-bob", a_key[0]).status in (400, 401)
        assert bob.get_dec("sae-alice", b_key[0]).status in (400, 401)
        assert bob.get_dec("sae-alice", a_key[0]).keys() == [a_key]
        assert alice.get_dec("sae-bob", b_key[0]).keys() == [b_key]


# --- 3: orderly stop and crash --------------------------------------------------------------------

def restarted(net, node, kill):
    gateway = net.gateways[node]
    gateway.kill() if kill else gateway.stop()
    net.restart(node)


def test_rule_03_an_orderly_stop_closes_keeps_what_was_taken_and_opens_anew(make_source, make_network):
    source = make_source()
    net = over(source, make_network, stock=100)
    with net.client("alice") as alice:
        keys = issue(alice, number=10)
    old = source.locate(keys[0][1])[0]
    restarted(net, "kme-a", kill=False)
    wait_for("the stream's end", lambda: source.seen(CLOSE, "sim-a", old), 20)
    restarted(net, "kme-b", kill=False)
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    with net.client("alice") as alice, net.client("bob") as bob:
        def drawn_from_another():
            new = issue(alice, number=20)
            assert bob.dec("sae-alice", *(i for i, _ in new)).keys() == new
            return source.locate(new[0][1])[0] != old
        wait_for("a key of a new epoch", drawn_from_another, 40)


def compared_first(net, node, ksid):
    """The index whose chunk a gateway that does not run will compare first, of what it has stored."""
    ((probe, last),) = database(net, node, "SELECT probe_index, max(first_index + count - 1) FROM epoch"
                                f" JOIN segment ON epoch_row = epoch.row WHERE ksid = x'{ksid.hex()}'")
    assert last <= probe
    return probe


def test_rule_03_after_a_crash_the_stream_goes_on_after_the_last_index_stored(make_source, make_network):
    source = make_source()
    net = over(source, make_network, stock=100)
    for node, end in (("kme-a", "sim-a"), ("kme-b", "sim-b")):
        with net.client("alice") as alice:
            before = source.locate(issue(alice)[0][1])[0]
        net.gateways[node].kill()
        wait_for("the end of its connections", lambda: not source.connected(end), 20)
        dead = {r.connection for r in source.requests}
        top = max(r.index for r in source.seen(GET, end, before))
        stored = compared_first(net, node, before)
        net.restart(node)

        def asked():
            return [r for r in source.requests if r.connection not in dead and r.end == end
                    and r.service == GET and r.ksid == before]
        with net.client("alice") as alice, net.client("bob") as bob:
            for _ in range(30):  # use up stock, so that intake goes on
                keys = issue(alice, number=20)
                assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
            assert source.locate(keys[0][1])[0] == before
        wait_for("GET_KEY on the same stream", asked, 20)
        # One stored index is read again to compare; all that was under way is asked for again.
        assert asked()[0].index == stored <= top
        assert not source.seen(CLOSE)


def test_rule_03_a_stored_index_with_another_value_ends_the_epoch(make_source, make_network):
    """After a crash the key manager answers the index that is read again with another chunk."""
    source = make_source()
    net = over(source, make_network, stock=100)
    with net.client("alice") as alice:
        keys = issue(alice, number=5)
    old = source.locate(keys[0][1])[0]
    net.gateways["kme-a"].kill()
    wait_for("the end of its connections", lambda: not source.connected("sim-a"), 20)
    top = max(r.index for r in source.seen(GET, "sim-a", old))

    def altered(request, answer):
        if request.end == "sim-a" and request.service == GET and request.ksid == old and request.index <= top:
            return answer[:20] + bytes(b ^ 1 for b in answer[20:52]) + answer[52:]
        return answer
    source.hook = altered
    net.restart("kme-a")
    with net.client("alice") as alice, net.client("bob") as bob:
        def drawn_from_another():
            new = issue(alice, number=20, timeout_s=40)
            assert bob.dec("sae-alice", *(i for i, _ in new)).keys() == new
            return source.locate(new[0][1])[0] != old
        wait_for("a key of a new epoch", drawn_from_another, 60)
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys


def test_rule_03_an_index_that_falls_back_ends_the_epoch(make_source, make_network):
    source = make_source()
    net = over(source, make_network, stock=100)
    with net.client("alice") as alice:
        old = source.locate(issue(alice)[0][1])[0]

    def back(request, answer):
        if request.end == "sim-a" and request.service == GET and request.ksid == old:
            return answer[:12] + bytes(4) + answer[16:]
        return answer
    source.hook = back
    with net.client("alice") as alice, net.client("bob") as bob:
        def drawn_from_another():
            new = issue(alice, number=10, timeout_s=40)
            assert bob.dec("sae-alice", *(i for i, _ in new)).keys() == new
            return source.locate(new[0][1])[0] != old
        wait_for("a key of a new epoch", drawn_from_another, 90, 0)


def test_rule_03_two_mismatches_in_a_row_end_the_epoch(make_source, make_network):
    source = make_source()
    net = over(source, make_network, stock=100)
    with net.client("alice") as alice:
        old = source.locate(issue(alice)[0][1])[0]
    top = max(r.index for r in source.seen(GET, "sim-b", old))

    def altered(request, answer):  # KME-B gets another key than KME-A from some index on
        if request.end == "sim-b" and request.service == GET and request.ksid == old and request.index > top:
            return answer[:20] + bytes(32) + answer[52:]
        return answer
    source.hook = altered
    with net.client("alice") as alice, net.client("bob") as bob:
        def drawn_from_another():
            new = issue(alice, number=10, timeout_s=40)
            assert bob.dec("sae-alice", *(i for i, _ in new)).keys() == new
            return source.locate(new[0][1])[0] != old
        wait_for("a key of a new epoch", drawn_from_another, 60, 0)
    assert len(net.gateways["kme-a"].lines("event=segment_mismatch", "stream=a-to-b")) == 2


# --- 8: a lease that a crash left is never issued ---------------------------------------------------

def test_rule_08_after_crashes_of_the_owner_positions_only_rise(make_source, make_network):
    source = make_source()
    net = over(source, make_network, stock=100)
    highest = {}
    for round_ in range(5):
        with net.client("alice") as alice, net.client("bob") as bob:
            keys = [k for _ in range(10) for k in issue(alice, number=3)]
            assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
        for _, key in keys:
            ksid, indexes = source.locate(key)
            assert indexes[0] > highest.get(ksid, -1), f"round {round_}"
            highest[ksid] = indexes[-1]
        restarted(net, "kme-a", kill=True)
        net.wait_stock("alice", "bob", timeout_s=40)


# --- 9: a database put back from a copy ---------------------------------------------------------------

def copy_database(net, node, to):
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(net.folder / node, to)


def put_back(net, node, copy):
    for path in (net.folder / node).glob("keys.db*"):
        path.unlink()
    for path in copy.glob("keys.db*"):
        shutil.copy2(path, net.folder / node / path.name)


def anchored_commits(net, node):
    """The commit counter in the anchor: each of two slots has a magic number, a sequence number, the counter."""
    slots = (net.folder / f"{node}-anchor" / "anchor").read_bytes()
    return max(struct.unpack_from(">QQ", slots, at + 4) for at in (0, len(slots) // 2))[1]


def rollback_reported(gateway):
    return gateway.lines("event=epochs_ended", "older than")


def test_rule_09_a_restored_database_of_the_owner_ends_its_epochs(make_source, make_network):
    source = make_source()
    net = over(source, make_network, stock=100)
    ledger = Ledger()
    gateway = net.gateways["kme-a"]
    with net.client("alice") as alice:
        ledger.issue(issue(alice, number=5))
    gateway.kill()
    copy_database(net, "kme-a", net.folder / "copy")
    net.restart("kme-a")
    net.wait_stock("alice", "bob", timeout_s=40)
    with net.client("alice") as alice:
        later = issue(alice, number=50)
        ledger.issue(later)
    old = source.locate(later[0][1])[0]
    gateway.kill()
    put_back(net, "kme-a", net.folder / "copy")
    net.restart("kme-a")
    wait_for("the rollback in the log", lambda: rollback_reported(gateway), 30)
    net.wait_stock("alice", "bob", timeout_s=60)
    with net.client("alice") as alice, net.client("bob") as bob:
        new = issue(alice, number=60)
        ledger.issue(new)
        assert bob.dec("sae-alice", *(i for i, _ in new)).keys() == new
    assert source.locate(new[0][1])[0] != old
    ledger.check()


def test_rule_09_a_restored_database_of_the_far_end_delivers_nothing_again(make_network):
    net = make_network()
    gateway = net.gateways["kme-b"]
    with net.client("alice") as alice:
        keys = issue(alice, number=40)
    gateway.kill()
    copy_database(net, "kme-b", net.folder / "copy")
    ((copied,),) = database(net, "kme-b", "SELECT value FROM number WHERE name = 'commits'")
    net.restart("kme-b")
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys[:20])).keys() == keys[:20]
    # The counter reaches the anchor at least once a second.
    wait_for("the counter in the anchor", lambda: anchored_commits(net, "kme-b") > copied, 20)
    gateway.kill()
    put_back(net, "kme-b", net.folder / "copy")
    net.restart("kme-b")
    wait_for("the rollback in the log", lambda: rollback_reported(gateway), 30)
    with net.client("bob") as bob:
        for key_id, _ in keys:
            assert not_found(bob.get_dec("sae-alice", key_id))
    net.wait_stock("alice", "bob", timeout_s=60)
    net.wait_stock("bob", "alice", timeout_s=60)
    exchange(net)


def test_rule_09_a_crash_without_a_restore_ends_no_epoch(make_network):
    """The hostile test's twin: the same steps with the database left as it was."""
    net = make_network()
    gateway = net.gateways["kme-b"]
    with net.client("alice") as alice:
        keys = issue(alice, number=40)
    gateway.kill()
    net.restart("kme-b")
    assert not rollback_reported(gateway)
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys


def test_rule_09_database_and_anchor_put_back_are_noticed_by_the_neighbour(make_source, make_network):
    """Both files of KME-A are as they were; KME-B remembers the highest mark that it was told."""
    source = make_source()
    net = over(source, make_network, stock=100)
    ledger = Ledger()
    gateway = net.gateways["kme-a"]
    both = ("kme-a", "kme-a-anchor")
    gateway.kill()
    for folder in both:
        copy_database(net, folder, net.folder / "copies" / folder)
    net.restart("kme-a")
    net.wait_stock("alice", "bob", 100, timeout_s=40)
    with net.client("alice") as alice, net.client("bob") as bob:
        for _ in range(60):  # enough that segments with higher marks are confirmed
            keys = issue(alice, number=20)
            ledger.issue(keys)
            assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    old = source.locate(keys[0][1])[0]
    gateway.kill()
    for folder in both:
        shutil.rmtree(net.folder / folder)
        shutil.copytree(net.folder / "copies" / folder, net.folder / folder)
    net.restart("kme-a")
    with net.client("alice") as alice, net.client("bob") as bob:
        for _ in range(40):
            keys = issue(alice, number=10, timeout_s=60)
            ledger.issue(keys)
            assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    assert source.locate(keys[0][1])[0] != old
    ledger.check()


def test_rule_09_an_unreachable_neighbour_does_not_block_a_start(make_network):
    net = make_network(stock=100)
    for gateway in net.gateways.values():
        gateway.kill()
    net.restart("kme-a")
    with net.client("alice") as alice:
        keys = issue(alice, number=10)
    net.restart("kme-b")
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys


def test_rule_09_a_missing_anchor_issues_nothing_of_the_old_epochs(make_source, make_network):
    """Without the anchor nobody knows how far key was given out: refused, or the epochs end."""
    source = make_source()
    net = over(source, make_network, stock=100)
    gateway = net.gateways["kme-a"]
    with net.client("alice") as alice:
        old = source.locate(issue(alice)[0][1])[0]
    gateway.kill()
    (net.folder / "kme-a-anchor" / "anchor").unlink()
    gateway.start()
    wait_for("ready, or the end", lambda: gateway.lines("event=ready") or gateway.pid is None, 30)
    if gateway.pid is not None:
        with net.client("alice") as alice, net.client("bob") as bob:
            keys = issue(alice, number=5, timeout_s=40)
            assert source.locate(keys[0][1])[0] != old
            assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    else:
        assert gateway.lines("anchor")


# --- 11: two windows -----------------------------------------------------------------------------------

def test_rule_11_the_owner_stops_issuing_after_its_window(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 16384, "issue_s": 6, "fetch_s": 60})
    with net.client("alice") as alice, net.client("bob") as bob:
        (key,) = issue(alice)
        net.outage(True)
        wait_for("the end of the issue window", lambda: alice.enc("sae-bob").status == 503, 30, 0.2)
        wait_for("a status that says so",
                 lambda: alice.status("sae-bob").json["stored_key_count"] == 0, 20)
        assert bob.get_dec("sae-alice", key[0]).keys() == [key]  # still within the fetch window
        net.outage(False)
        issue(alice, timeout_s=30)


def test_rule_11_the_far_end_keeps_a_key_for_both_windows_and_no_longer(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 16384, "issue_s": 4, "fetch_s": 6})
    with net.client("alice") as alice, net.client("bob") as bob:
        for _ in range(5):  # until it was asked in time
            begin = time.monotonic()
            keys = issue(alice, number=20)
            time.sleep(4)
            answer = bob.dec("sae-alice", *(i for i, _ in keys[:10]))
            if time.monotonic() - begin < 6:
                break
        assert answer.keys() == keys[:10]
        time.sleep(9)
        assert not_found(bob.get_dec("sae-alice", keys[10][0]))
        later = issue(alice, number=5)
        assert bob.dec("sae-alice", *(i for i, _ in later)).keys() == later


def test_rule_11_time_that_passes_while_stopped_counts(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 16384, "issue_s": 3, "fetch_s": 4})
    with net.client("alice") as alice:
        keys = issue(alice, number=5)
    net.gateways["kme-b"].kill()
    time.sleep(9)
    net.restart("kme-b")
    with net.client("bob") as bob:
        assert not_found(bob.get_dec("sae-alice", keys[0][0]))


# --- 12: at rest ------------------------------------------------------------------------------------------

def blobs(net, node):
    """{segment row: sealed blob} of the database of a gateway that does not run."""
    return {row: bytes(blob) for row, blob in
            database(net, node, "SELECT row, sealed FROM segment_blob WHERE sealed NOT NULL")}


def nonces(blob):
    """Version, generation (5 bytes); nonce, wrapped key (24 + 48); nonce, ciphertext, tag."""
    return blob[5:29], blob[77:101]


def test_rule_12_every_blob_is_sealed_under_a_fresh_nonce(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 8192})
    gateway = net.gateways["kme-b"]
    net.outage(True)
    seen = {}
    changed = rounds = 0
    while changed < 3:  # segments are sealed again after each delivery
        rounds += 1
        assert rounds < 20
        with net.client("alice") as alice, net.client("bob") as bob:
            keys = issue(alice, number=20)
            assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
        time.sleep(2.2)  # consumed key leaves the blobs with the next flush
        gateway.kill()
        for row, blob in blobs(net, "kme-b").items():
            if seen.get(row) == blob:
                continue
            assert not set(nonces(blob)) & {n for old in seen.values() for n in nonces(old)}
            changed += row in seen
            seen[row] = blob
        net.restart("kme-b")


def test_rule_12_the_durable_bitmap_decides_what_is_consumed(make_network):
    """Killed before the flush: the blob still holds the chunk, the bitmap says it is gone."""
    net = make_network(tweak=lambda name, config: config["store"].update(flush_ms=60000))
    gateway = net.gateways["kme-b"]
    with net.client("alice") as alice:
        keys = issue(alice, number=4)
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys[:2])).keys() == keys[:2]
    gateway.kill()
    net.restart("kme-b")
    with net.client("bob") as bob:
        assert not_found(bob.get_dec("sae-alice", keys[0][0]))
        assert bob.dec("sae-alice", *(i for i, _ in keys[2:])).keys() == keys[2:]


def test_rule_13_of_restarts_in_a_row_none_makes_a_key_unknown(make_network):
    """Each opens an epoch; a key from an old one is not looked for in vain while others open."""
    net = make_network(line(3), pool={"ready_chunks": 512, "inbound_chunks": 1 << 20}, between=("alice", "carol"))
    gateway = net.gateways["kme-a"]
    for n in range(24):
        gateway.stop()
        net.restart("kme-a")
        with net.client("alice") as alice:
            keys = issue(alice, "sae-carol", number=2, timeout_s=60)
        gateway.wait_log("event=epoch_opened", "stream=relay-a-to-c", timeout_s=20)
        if n % 2:
            net.wait_stock("alice", "carol", 400, timeout_s=60)
        with net.client("carol") as carol:
            assert carol.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
