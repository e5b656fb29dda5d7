# SPDX-License-Identifier: Apache-2.0
"""What tests of relaying share: keys passed between two SAEs, the accounts of pads, hop counts."""

import re
import time
from dataclasses import dataclass

from processes import wait_for

MAC_KEYS = 64  # bytes of node key that each message takes beside its pad


class Passer:
    """Keys from one SAE to another; all are entered in the ledger."""

    def __init__(self, net, ledger, master, slave):
        self.net, self.ledger, self.names = net, ledger, (master, slave)
        self.master, self.slave = net.client(master), net.client(slave)

    def issue(self, number):
        """The answer of enc_keys; its keys are delivered too."""
        answer = self.master.enc(f"sae-{self.names[1]}", number=number)
        if answer.status == 200:
            keys = answer.keys()
            ids = [i for i, _ in keys]
            self.ledger.issue(keys)
            got = self.slave.dec(f"sae-{self.names[0]}", *ids)
            assert got.status == 200, got.body
            self.ledger.deliver(ids, got.keys())
        return answer

    def some(self, number, timeout_s=180):
        """Passes so many keys, waiting while the pool is empty."""
        done, end = 0, time.monotonic() + timeout_s
        while done < number:
            n = min(64, number - done)
            answer = self.issue(n)
            if answer.status == 200:
                done += n
                continue
            assert answer.status == 503, answer.body
            assert time.monotonic() < end, self.told(f"{done} of {number} keys in {timeout_s} s")
            time.sleep(0.05)

    def drain(self, timeout_s=120):
        """Passes keys until not one is left; the answer that says so, and how many there were."""
        number, done, end = 64, 0, time.monotonic() + timeout_s
        while True:
            answer = self.issue(number)
            if answer.status == 200:
                done += number
            elif number > 1:
                number //= 8
            else:
                assert answer.status == 503, answer.body
                return answer, done
            assert time.monotonic() < end, self.told(f"still keys after {done}")

    def told(self, what):
        home = self.net.topology.home(self.names[0]).name
        return f"{what}\n{self.net.gateways[home].log()[-4000:]}"


def runs_down(passer, most, quiet_s=2):
    """Until no key has come for a while: the last answer, and how many there were."""
    passed, end = 0, time.monotonic() + 120
    while True:
        answer, more = passer.drain()
        passed += more
        if passed and not more:
            break
        assert time.monotonic() < end, passer.told("keys still come")
        time.sleep(quiet_s)
    assert answer.status == 503 and "Retry-After" in answer.headers
    assert passed <= most
    return answer, passed


def answered(client, slave, **members):
    """The answer of enc_keys once there is key for it."""
    return wait_for(f"a key for {slave}", lambda: (a := client.enc(slave, **members)).status != 503 and a, 60, 0.1)


def hops_of(key):
    """Of a key of an enc_keys answer."""
    return key.get("key_extension", {}).get("hops", 0)


def ways(net, relay, since=0):
    """The ways that the segments of a virtual stream went, oldest first: a list of node names each."""
    lines = net.gateways[relay.source].lines("event=relay_path ", f"stream={relay.name} ", whole=True)
    return [re.search(r" path=(\S+)", line).group(1).lower().split(",") for line in lines[since:]]


# --- pads ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Account:
    """Of one stream at one of its ends, as in the last line that its gateway logged."""

    opened: int = 0
    used: int = 0
    data: int = 0
    overhead: int = 0
    given_up: int = 0
    open: int = 0
    messages: int = 0

    def __sub__(self, other):
        return Account(*(getattr(self, n) - getattr(other, n) for n in self.__dataclass_fields__))


def accounts(net):
    """{(stream, node): Account} of what is masked: at the owner what it sent with, at the far end what
    it received with."""
    found = {}
    for node, gateway in net.gateways.items():
        for line in gateway.lines("event=pads "):
            words = dict(re.findall(r"(\w+)=(\S+)", line))
            owner, _ = owners(net)[words["stream"]]
            if words["side"] == ("owner" if node == owner else "far_end"):
                found[(words["stream"], node)] = Account(*(int(words[n]) for n in Account.__dataclass_fields__))
    return found


def owners(net):
    """{stream: (owner, far end)} of the links and of the virtual streams."""
    found = {name: (a, b) for link in net.topology.links for name, a, b in link.streams()}
    return {**found, **{r.name: (r.source, r.target) for r in net.topology.relays}}


def link_stream(net, a, b):
    """The stream that masks what a sends to b."""
    return next(name for name, ends in owners(net).items()
                if ends == (a, b) and not name.startswith("relay-"))


def table(rows):
    """Accounts by (stream, node) as text."""
    names = list(Account.__dataclass_fields__)
    lines = [f"{'stream':<14}{'node':<8}" + "".join(f"{n:>11}" for n in names)]
    for (stream, node), account in sorted(rows.items()):
        lines.append(f"{stream:<14}{node:<8}" + "".join(f"{getattr(account, n):>11}" for n in names))
    return "\n".join(lines)


def check_account(account):
    """What holds of every account at every moment."""
    assert account.used == account.data + account.overhead
    assert account.overhead == MAC_KEYS * account.messages
    assert account.opened == account.used + account.given_up + account.open
