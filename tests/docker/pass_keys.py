# SPDX-License-Identifier: Apache-2.0
"""Runs in the client container: pass_keys.py load|issue|fetch MASTER@NODE:SLAVE@NODE...

load   passes keys without end until its input ends, then prints what came of it as JSON
issue  takes keys at the masters and prints them, {slave pair: {ID: key}}, for `fetch` later
fetch  reads that from its input and fetches all of them at the slaves
"""

import json
import sys
import time

sys.path[:0] = ["/tests/e2e", "/tests/demo"]

from client import Client  # noqa: E402
from ledger import Ledger  # noqa: E402
from load import BROKEN, Load, end_all  # noqa: E402

SECRETS = "/run/secrets"
NUMBER = 64


class Applications:
    """What load.py needs of a network."""

    def __init__(self, pairs):
        self.homes = dict(where.split("@") for pair in pairs for where in pair)

    def client(self, sae, timeout_s=15):
        return Client(f"https://{self.homes[sae]}-sae.demo:8443", f"{SECRETS}/ca.pem", f"{SECRETS}/{sae}.pem",
                      f"{SECRETS}/{sae}.key", timeout_s)


def patiently(ask):
    end = time.monotonic() + 120
    while True:
        try:
            answer = ask()
            if answer.status == 200:
                return answer.keys()
            why = f"{answer.status} {answer.body!r}"
        except BROKEN as error:
            why = str(error)
        if time.monotonic() > end:
            sys.exit(f"no keys within 120 s: {why}")
        time.sleep(0.1)


def load(net, pairs):
    ledger = Ledger()
    loads = [Load(net, ledger, *pair, seed) for seed, pair in enumerate(pairs)]
    for one in loads:
        one.start()
    print("running", flush=True)
    sys.stdin.read()
    end_all(loads)
    try:
        ledger.check()
        faults = ""
    except AssertionError as error:
        faults = str(error)
    return {"issued": len(ledger.issued), "delivered": len(ledger.delivered), "lost": len(ledger.lost),
            "missing": [sorted(x.missing) for x in loads], "unexpected": [x.unexpected for x in loads],
            "faults": faults}


def issue(net, pairs):
    result = {}
    for master, slave in pairs:
        with net.client(master) as client:
            keys = patiently(lambda: client.enc(f"sae-{slave}", number=NUMBER))
        result[f"{master}:{slave}"] = {key_id: key.hex() for key_id, key in keys}
    return result


def fetch(net, pairs):
    """For each pair whether all keys came, the same, and none a second time."""
    issued, result = json.load(sys.stdin), {}
    for master, slave in pairs:
        want = issued[f"{master}:{slave}"]
        with net.client(slave) as client:
            got = dict(patiently(lambda: client.dec(f"sae-{master}", *want)))
            again = client.dec(f"sae-{master}", *want).status
        result[f"{master}:{slave}"] = {key_id: key.hex() for key_id, key in got.items()} == want and again == 400
    return result


def main(what, *words):
    pairs = [word.split(":") for word in words]
    net = Applications(pairs)
    saes = [[where.split("@")[0] for where in pair] for pair in pairs]
    print(json.dumps({"load": load, "issue": issue, "fetch": fetch}[what](net, saes)))


if __name__ == "__main__":
    main(*sys.argv[1:])
