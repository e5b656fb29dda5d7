# SPDX-License-Identifier: Apache-2.0
"""The operating log: where its lines go, what becomes of them when they cannot, and one ID for a request in
the lines of every node that had to do with it."""

import json
import os
import re
import select
import signal
import socket
import ssl
import urllib.request

import pytest

from admin import ctl, https, local
from client import tls_context
from links import issue
from processes import wait_for
from topology import operators, pair

NEW_ID = re.compile(r"[0-9a-f]{32}")


def debug(name, config):
    config["log"] = {"level": "debug"}


def to_file(net_file, **more):
    def tweak(name, config):
        if name == "kme-a":
            config["log"] = {"to": "file", "file": str(net_file), **more}
    return tweak


def text_of(path):
    """Its whole lines: the last may be under way."""
    return "".join(path.read_text().rpartition("\n")[:2]) if path.exists() else ""


def start(net):
    """Where KME-A does not say on standard error that it is ready."""
    for process in net.processes():
        process.start()
    for process in net.processes():
        if process.name != "kme-a":
            process.wait_ready()
    wait_for("kme-a", lambda: net.admin_socket("kme-a").exists(), 30)
    net.wait_stock("alice", "bob")


def audited(net, node, request_id):
    text = text_of(net.folder / node / "audit.log")
    return [e for e in map(json.loads, text.splitlines()) if e.get("request") == request_id]


# --- one ID ------------------------------------------------------------------------------------------------------

def test_an_answer_bears_the_id_of_its_request(make_network):
    net = make_network(tweak=debug, admin=True)
    with net.client("alice") as alice:
        given = alice.request("GET", "/api/v1/keys/sae-bob/enc_keys", headers={"X-Request-ID": "Order-66_a.b"})
        made, other = alice.status("sae-bob"), alice.status("sae-bob")
        refused = alice.request("GET", "/nowhere", headers={"X-Request-ID": "lost"})
    assert given.status == 200 and given.headers["X-Request-ID"] == "Order-66_a.b"
    assert refused.status == 404 and refused.headers["X-Request-ID"] == "lost"
    ids = [a.headers["X-Request-ID"] for a in (made, other)]
    assert all(NEW_ID.fullmatch(i) for i in ids) and ids[0] != ids[1]
    key_id = given.keys()[0][0]
    with net.client("bob") as bob:
        fetched = bob.request("GET", f"/api/v1/keys/sae-alice/dec_keys?key_ID={key_id}",
                              headers={"X-Request-ID": "Order-66_a.b"})
    assert fetched.status == 200
    net.gateways["kme-a"].wait_log("event=answered method=enc_keys sae=sae-alice other=sae-bob keys=1",
                                   "request=Order-66_a.b")
    net.gateways["kme-b"].wait_log("event=answered method=dec_keys", "request=Order-66_a.b")
    for node, act in (("kme-a", "issued"), ("kme-b", "fetched")):
        lines = wait_for(f"the audit log of {node}", lambda n=node: audited(net, n, "Order-66_a.b"), 20)
        assert [(e["act"], e["id"]) for e in lines] == [(act, key_id)]
    # An ID that nobody gave has no place there: whoever asked does not know it.
    assert not any(i in (net.folder / "kme-a" / "audit.log").read_text() for i in ids)


def test_keys_for_saes_at_several_nodes_are_one_request_at_all_of_them(make_network):
    net = make_network(topology=pair(node_chunks=2048), tweak=debug, admin=True)
    with net.client("alice") as alice:
        def ask():
            answer = alice.request("POST", "/api/v1/keys/sae-bob/enc_keys", headers={"X-Request-ID": "many-slaves"},
                                   body={"additional_slave_SAE_IDs": ["sae-dave", "sae-erin"]})
            return answer if answer.status == 200 else None
        answer = wait_for("keys for several", ask, 60, 0.2)
    assert answer.headers["X-Request-ID"] == "many-slaves"
    a, b = (net.gateways[node] for node in ("kme-a", "kme-b"))
    for gateway, words in ((a, "event=send kind=make_keys_external neighbour=KME-B"),
                           (a, "event=answered method=enc_keys"),
                           (b, "event=received kind=make_keys_external neighbour=KME-A"),
                           (b, "event=answered kind=make_keys_external")):
        gateway.wait_log(words, "request=many-slaves")
    made = wait_for("the audit log of kme-b", lambda: audited(net, "kme-b", "many-slaves"), 20)
    assert {e["act"] for e in made} == {"made"} and {e["id"] for e in made} == {i for i, _ in answer.keys()}
    # What belongs to no request has the same ID at both ends, too.
    received = ids_of(b.wait_log("event=received kind=new_key_batch neighbour=KME-A"))
    assert received <= ids_of(a.lines("event=send kind=new_key_batch neighbour=KME-B"))


def ids_of(lines):
    return {re.search(r" request=([0-9a-f]{32})$", line)[1] for line in lines}


def test_a_key_to_another_network_is_one_request_at_all_four_gateways(make_network):
    net = make_network(topology=operators(), tweak=debug, stock=0)
    net.wait_foreign("alice", "zoe")
    with net.client("alice", timeout_s=60) as alice:
        def ask():
            return alice.request("GET", "/api/v1/keys/sae-zoe/enc_keys", headers={"X-Request-ID": "abroad-7"})
        wait_for("a key abroad", lambda: ask().status == 200, 60, 0.2)
    for node, words in (("kme-a", "event=send kind=make_keys_external"), ("kme-g1", "etsi020 event=send"),
                        ("kme-g2", "event=send kind=make_keys_external"),
                        ("kme-z", "event=received kind=make_keys_external")):
        net.gateways[node].wait_log(words, "request=abroad-7")


# --- hostile -----------------------------------------------------------------------------------------------------

HOSTILE = [b"a b", b"a\tb", b'a"b', b"a\\b", b"a=b", b"\xff\xfe", b"a\x1b[31mb", b"x" * 65, b"x" * 4000, b"",
           b"a,b", b"one\r\nX-Request-ID: two", b"{}", b'"},"level":"forged', b"event=forged", b"../../etc"]


def ask_raw(net, head):
    """What comes back for these bytes, before the server closes or falls silent."""
    context = tls_context(net.pki / "ca.pem", net.pki / "alice.pem", net.pki / "alice.key")
    host, port = net.endpoints["kme-a/sae"]
    with socket.create_connection((host, port), timeout=15) as plain, \
            context.wrap_socket(plain, server_hostname=host) as tls:
        tls.sendall(head)
        said = b""
        try:
            while b"\r\n\r\n" not in said and (more := tls.recv(65536)):
                said += more
        except (ssl.SSLError, OSError):
            pass
        return said


def test_no_header_gets_into_a_line(make_network):
    """Whatever stands in the header, it is a line of its own, JSON that parses, and an ID made anew."""
    net = make_network(start=False, admin=True)
    file = net.folder / "kme-a.jsonl"
    net.write_config("kme-a", lambda c: to_file(file, format="json", level="debug")("kme-a", c))
    start(net)
    answered = 0
    for value in [*HOSTILE, b"x" * 10240]:
        for target in (b"/api/v1/keys/sae-bob/status", b"/nowhere"):
            said = ask_raw(net, b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nX-Request-ID: " + value +
                           b"\r\nConnection: close\r\n\r\n")
            if not said:
                continue  # libmicrohttpd does not answer everything
            found = re.findall(rb"\r\nX-Request-ID: ([^\r]*)\r\n", said)
            # What libmicrohttpd refuses by itself never gets to us.
            assert len(found) <= 1
            if found:
                answered += 1
                assert NEW_ID.fullmatch(found[0].decode()), (value, found)
    with net.client("alice") as alice:
        assert alice.status("sae-bob").status == 200
    assert answered >= 2 * len(HOSTILE) - 4
    lines = [json.loads(line) for line in text_of(file).splitlines()]
    assert {line["level"] for line in lines} <= {"debug", "info", "warn", "error"}
    assert not [line for line in lines if line["event"] in ("forged", "x")]
    refused = [line for line in lines if line["event"] == "refused" and line["module"] == "etsi014"]
    assert refused and all(NEW_ID.fullmatch(line["request"]) for line in refused)
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", line.get("request", "none"))


# --- files -------------------------------------------------------------------------------------------------------

def test_a_log_file_is_rotated_by_signal_and_by_command(make_network):
    net = make_network(start=False, admin=True)
    file = net.folder / "kme-a.own.log"
    net.write_config("kme-a", lambda c: to_file(file)("kme-a", c))
    start(net)
    wait_for("the first lines", lambda: "event=ready" in text_of(file), 30)
    first, second, third = (net.folder / f"kme-a.log.{i}" for i in (1, 2, 3))
    file.rename(first)
    code, out, err = ctl(net, "reopen-log")
    assert (code, out) == (0, "done: reopen-log\n"), err
    assert file.exists()
    file.rename(second)
    net.gateways["kme-a"].signal(signal.SIGHUP)
    wait_for("a reload", lambda: "event=reloaded" in text_of(file), 30)
    # A reload that is refused has opened it all the same.
    net.config_file("kme-a").write_text("kme: [\n")
    file.rename(third)
    net.gateways["kme-a"].signal(signal.SIGHUP)
    wait_for("a refusal", lambda: "event=reload_refused" in text_of(file), 30)
    assert "event=reload_refused" not in third.read_text()
    assert local(net).get("/api/v1/logs")["lost"] == 0
    wait_for("the audit log", lambda: '"reason":"reopen log"' in text_of(net.folder / "kme-a" / "audit.log"), 30)


def test_a_log_that_cannot_be_written_holds_up_no_key(make_network):
    """A file whose name leads to itself: it can be opened neither at the start nor later."""
    net = make_network(start=False, admin=True)
    file = net.folder / "loop.log"
    file.symlink_to(file)
    net.write_config("kme-a", lambda c: to_file(file)("kme-a", c))
    start(net)
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=16)
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    logs = local(net).get("/api/v1/logs")
    assert not logs["works"] and logs["lost"] > 0
    told = net.gateways["kme-a"].lines("event=log_failed", "to=file")
    assert len(told) == 1 and "error log" in told[0]
    with urllib.request.urlopen(net.admin_url("kme-a", "scrape") + "/metrics", timeout=30) as answer:
        metrics = answer.read().decode()
    assert "\nqkdgate_log_up 0\n" in metrics and not re.search(r"^qkdgate_log_lost_lines_total 0$", metrics, re.M)
    wait_for("readiness", lambda: local(net).request("GET", "/readyz").status == 200, 30, 0.1)
    code, out, _ = ctl(net, "doctor")
    assert code == 1 and str(file) in out and "reopen-log" in out
    assert ctl(net, "reopen-log")[0] == 1
    file.unlink()
    assert ctl(net, "reopen-log")[0] == 0
    net.gateways["kme-a"].signal(signal.SIGHUP)
    wait_for("lines again", lambda: "event=log_recovered" in text_of(file), 30)
    logs = local(net).get("/api/v1/logs")
    assert logs["works"]
    assert int(re.search(r"event=log_recovered lost=(\d+)", file.read_text())[1]) == logs["lost"]
    assert len(net.gateways["kme-a"].lines("event=log_failed")) == 1
    wait_for("a doctor who finds nothing", lambda: ctl(net, "doctor")[0] == 0, 30, 0.3)


def test_a_reader_that_stands_still_holds_up_no_key(make_network):
    """Standard error is a pipe that nobody reads any more; each line would fill it further."""
    net = make_network(tweak=debug, admin=True, start=False)
    gateway = net.gateways["kme-a"]
    fifo = net.folder / "stderr"
    gateway.arguments = ["sh", "-c", f'exec 3<>"{fifo}"; exec "$@" 2>&3', "sh", *gateway.arguments]
    os.mkfifo(fifo)
    start(net)
    with net.client("alice") as alice, net.client("bob") as bob:
        for _ in range(2000):
            keys = issue(alice)
            assert bob.dec("sae-alice", keys[0][0]).keys() == keys
            logs = local(net).get("/api/v1/logs")
            if logs["lost"] > 100:
                break
    assert not logs["works"] and logs["lost"] > 100
    assert ctl(net, "doctor")[0] == 1


def test_the_journal_gets_fields(make_network):
    net = make_network(start=False, admin=True)
    gateway = net.gateways["kme-a"]
    path = f"/tmp/qg-journal-{net.endpoints['kme-a/sae'][1]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        try:
            journal.settimeout(30)
            net.write_config("kme-a", lambda c: c.update(log={"to": "journal", "journal_socket": path}))
            for _ in range(20):
                gateway.start()
                if entries := start_of(gateway, journal):
                    break
                gateway.stop()
            assert entries[-1]["QKDGATE_MODULE"] == "daemon" and entries[-1]["PRIORITY"] == "6"
            assert entries[-1]["MESSAGE"].startswith("daemon event=ready kme=KME-A ")
            assert all(e["SYSLOG_IDENTIFIER"] == "qkdgate" for e in entries)
        finally:
            os.unlink(path)


def start_of(gateway, journal):
    """The entries of a start, if standard error has nothing. Else it has but one line: that the test did not
    read as fast as it should, and entries are lost."""
    entries = []
    while not entries or entries[-1]["QKDGATE_EVENT"] != "ready":
        entries.append(wait_for("an entry", lambda: entry_of(journal) or gateway.log(), 30))
        if gateway.log():
            assert [("event=log_failed" in x, "to=journal" in x) for x in gateway.lines()] == [(True, True)]
            return None
    return entries


def entry_of(journal):
    if not select.select([journal], [], [], 0)[0]:
        return None
    entry = journal.recv(65536).decode()
    assert entry.endswith("\n")
    return dict(line.split("=", 1) for line in entry.splitlines())


# --- levels ------------------------------------------------------------------------------------------------------

def test_levels_set_at_run_time_outlive_a_reload(make_network):
    net = make_network(admin=True)
    assert ctl(net, "log", "etsi014", "debug")[0] == 0
    net.write_config("kme-a", lambda c: c.update(log={"level": "warn"}))
    assert ctl(net, "reload")[0] == 0
    logs = local(net).get("/api/v1/logs")
    assert logs["level"] == "warn" and logs["modules"] == {"etsi014": "debug"}
    with net.client("alice") as alice:
        assert alice.request("GET", "/nowhere").status == 404
    net.gateways["kme-a"].wait_log(" debug etsi014 event=refused status=404")


@pytest.mark.parametrize("log, words", [
    ({"to": "file"}, "log.file: is missing"),
    ({"file": "x.log"}, "log.file: has no use with to: stderr"),
    ({"to": "journal", "file": "x.log"}, "log.file: has no use with to: journal"),
    ({"journal_socket": "/run/x"}, "log.journal_socket: has no use with to: stderr"),
    ({"to": "syslog"}, "log.to"),
    ({"to": "file", "file": "/nowhere/at/all/x.log"}, "is its folder and cannot be reached"),
    ({"to": "file", "file": "/tmp"}, "log.file: is not a regular file"),
])
def test_mistakes_in_the_section_are_named(make_network, log, words):
    net = make_network(start=False)
    net.write_config("kme-a", lambda c: c.update(log=log))
    gateway = net.gateways["kme-a"]
    gateway.start()
    wait_for("its end", lambda: gateway.pid is None, 30)
    assert words in gateway.log(), gateway.log()


def test_https_administrators_can_reopen_it_too(make_network):
    net = make_network(admin=True)
    with https(net) as carol:
        answer = carol.request("POST", "/api/v1/logs/reopen")
    assert answer.status == 200 and answer.json == {"done": "reopen-log"}
