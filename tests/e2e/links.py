# SPDX-License-Identifier: Apache-2.0
"""Pairs of gateways over a link that the test plays, and what tests do with them."""

import json
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing

from processes import wait_for
from topology import pair

POOL = {"ready_chunks": 512, "inbound_chunks": 8192}
SEGMENT = 64  # chunks


def over(source, make_network, tls=True, stock=1, start=True, segment_chunks=SEGMENT, tweak=None,
         pool=None, **qos):
    """A pair whose only link is `source`; qos goes into the stream's source section."""
    topology = pair(dialect=source.dialect, tls=tls, simulated=False, segment_chunks=segment_chunks,
                    chunk_size=source.chunk_size, source=qos)
    return make_network(topology, sources=source.addresses, stock=stock, start=start, tweak=tweak,
                        pool=pool or POOL)


def exchange(net, number=20, timeout_s=20):
    """Keys in both directions, the same at both ends; returns those that bob issued."""
    with net.client("alice") as alice, net.client("bob") as bob:
        for master, slave, names in ((alice, bob, ("alice", "bob")), (bob, alice, ("bob", "alice"))):
            keys = issue(master, f"sae-{names[1]}", number, timeout_s)
            assert slave.dec(f"sae-{names[0]}", *(i for i, _ in keys)).keys() == keys
    return keys


def issue(client, slave="sae-bob", number=1, timeout_s=20, **members):
    """enc_keys, waiting while the pool is empty."""
    answer = None

    def ask():
        nonlocal answer
        answer = client.enc(slave, number=number, **members)
        return answer.status != 503
    wait_for(f"{number} keys for {slave}", ask, timeout_s, 0.1)
    assert answer.status == 200, answer.body
    return answer.keys()


def steady_stock(net, master="alice", slave="bob"):
    """The stock once it no longer grows. The far end has answered meanwhile, which confirms what is to come:
    one that is merely late would let it grow yet."""
    last = -1
    while (now := net.stock(master, slave)) != last:
        last = now
        time.sleep(0.7)
        net.stock(slave, master)
    return last


def first_requests(source, service, end=None):
    wait_for(f"a 004 request of service {service}", lambda: source.seen(service, end), 20)
    return source.seen(service, end)


def not_found(answer):
    return answer.status == 400 and answer.message == "one or more keys specified are not found on KME"


def refused(answer):
    return answer.status == 401 and answer.body == b""


def audit_lines(*files):
    """The whole lines of audit logs, maybe of a gateway that goes on writing: what stands behind the last
    newline is not there yet."""
    return [json.loads(line) for file in files for line in file.read_bytes().rpartition(b"\n")[0].splitlines()]


def audited(net, node, act):
    """IDs of all keys of which a gateway's audit log says so."""
    return {e["id"] for e in audit_lines(net.folder / node / "audit.log") if e["act"] == act and "id" in e}


def database(net, node, query):
    """The rows of a query to a copy of the database of a gateway that does not run."""
    with tempfile.TemporaryDirectory(dir=net.folder) as copy:
        for path in (net.folder / node).glob("keys.db*"):
            shutil.copy2(path, copy)
        with closing(sqlite3.connect(f"{copy}/keys.db")) as connection:
            return connection.execute(query).fetchall()
