# SPDX-License-Identifier: Apache-2.0
"""A network with one gateway under faults: what is asked of it while a call fails, and what must hold
then and afterwards."""

import contextlib
import dataclasses
import functools
import http.client
import json
import random
import signal
import time

from admin import Local
from app004 import App, Closed
from control import FOREVER, Control, under_faults
from ledger import Ledger
from network import Network, binary, build_folder, complete_pki
from processes import ProcessFailed, wait_for
from relaying import accounts, check_account
from topology import Node, Sae, line, operators

POOL = {"ready_chunks": 512, "inbound_chunks": 1 << 20, "issue_s": 60, "fetch_s": 120}
BROKEN = (OSError, http.client.HTTPException)
ANSWER_S = 60  # an answer that takes longer never comes


class Defect(AssertionError):
    """Something that no fault may bring about."""


class Ended(Defect):
    """The gateway is gone, in order or ended by a library."""


def _line():
    """KME-A, where two applications live, KME-B and KME-C, and keys relayed over KME-B."""
    plain = line(3)
    nodes = (Node("kme-a", (Sae("alice"), Sae("dave"))), *plain.nodes[1:])
    return dataclasses.replace(plain, nodes=nodes, groups=(("alice", "bob", "carol", "dave"),))


@dataclasses.dataclass(frozen=True)
class Case:
    """A topology, the gateway in it that is put under faults, and the pairs that pass keys. Of pairs
    marked `slowly` the master's gateway hands over each key before it answers."""

    topology: object
    target: str
    pairs: tuple
    slowly: tuple = ()
    several: tuple = ()  # a master and its slaves of one key
    streams: tuple = ()  # pairs of applications with a key stream


CASES = {
    "source": Case(_line, "kme-a", (("alice", "bob"), ("bob", "alice"), ("alice", "carol"), ("carol", "alice")),
                   (("alice", "dave"),), ("alice", "bob", "carol"), (("alice", "bob"),)),
    "hop": Case(_line, "kme-b", (("alice", "bob"), ("bob", "alice"), ("alice", "carol"), ("carol", "alice")),
                (), ("alice", "bob", "carol"), (("alice", "bob"),)),
    "border": Case(operators, "kme-g1", (), (("alice", "zoe"), ("zoe", "alice"))),
    "kxi": Case(functools.partial(operators, kxi=True), "kme-g1", (), (("alice", "zoe"), ("zoe", "alice"))),
}


class Scenario:
    """`folder` holds the network; `pki` is copied there when given."""

    def __init__(self, case, folder, pki=None, tweak=None, faults=True):
        self.case = CASES[case]
        self.ledger = Ledger()
        self.unsure = set()   # IDs that some answer about may have consumed
        self.answers = {}     # (what was asked, status): how often
        self.tweak = tweak
        topology = self.case.topology()
        if pki:
            complete_pki(pki, topology)
        self.net = Network(topology, folder, pki=pki, tweak=self._small, admin=True)
        self.net.prepare()
        self.control = Control(self.net.folder / "faults", binary("qkdgate"))
        self.target = self.net.gateways[self.case.target]
        if faults:
            under_faults(self.target, self.control, build_folder())
        self.disturbing = self.again = False
        self.library_died = ""  # what the gateway said last
        self.waiting = []     # (master, slave, IDs) issued and not yet fetched
        self.fetched = []     # the same of those that were delivered since the last start
        self._clients = {}

    def _small(self, name, config):
        config["pool"] = dict(POOL)
        if self.tweak:
            self.tweak(name, config)

    # --- one request ---------------------------------------------------------------------------

    def _client(self, sae):
        """Kept, with its connection."""
        if sae not in self._clients:
            self._clients[sae] = self.net.client(sae, timeout_s=ANSWER_S)
        return self._clients[sae]

    def hang_up(self):
        """The next request of each application makes a new connection."""
        for client in self._clients.values():
            client.close()

    def _ask(self, what, call):
        """The answer, or None when the connection broke."""
        begin = time.monotonic()
        try:
            answer = call()
        except BROKEN as error:
            if isinstance(error, TimeoutError) or time.monotonic() - begin > ANSWER_S:
                raise Defect(f"{what}: no answer in {ANSWER_S} s") from None
            self._note(what, type(error).__name__)
            return None
        self._note(what, answer.status)
        if answer.status not in (200, 503):
            return self._other(what, answer)
        return answer

    def _note(self, what, result):
        self.answers[(what, result)] = self.answers.get((what, result), 0) + 1

    def _other(self, what, answer):
        """While something fails, an answer that could not be made is a 500, and who could not be
        recognised gets 401; both consume nothing that is not counted as lost."""
        if answer.status in (401, 500) and self.disturbing and self.control.fired:
            return answer
        if what.startswith("dec_keys") and (answer.status == 400 or answer.status == 401 and self.again):
            return answer
        raise Defect(f"{what}: {answer.status} {answer.body!r}")

    def issue(self, master, slave, number=2, others=()):
        """Whether there was a key; it is entered and waits to be fetched."""
        members = {"additional_slave_SAE_IDs": [f"sae-{o}" for o in others]} if others else {}
        client = self._client(master)
        answer = self._ask("enc_keys", lambda: client.enc(f"sae-{slave}", number=number, **members))
        if answer is None or answer.status != 200:
            return False
        keys = answer.keys()
        if len(keys) != number:
            raise Defect(f"{number} keys asked for, {len(keys)} came")
        self.ledger.issue(keys)
        self.waiting += [(master, s, [i for i, _ in keys]) for s in (slave, *others)]
        return True

    def fetch(self, master, slave, ids):
        """The answer's status, 0 for none; what came is entered."""
        client = self._client(slave)
        answer = self._ask(f"dec_keys by {slave} from {master}", lambda: client.dec(f"sae-{master}", *ids))
        if answer is None or answer.status in (500, 503):
            self.unsure.update((slave, i) for i in ids)
            return answer.status if answer else 0
        if answer.status == 400 and not any((slave, i) in self.unsure for i in ids):
            raise Defect(f"{slave} gets 400 for {ids}, of which no answer was lost: {answer.body!r}")
        if answer.status == 200:
            self.ledger.deliver(ids, answer.keys(), to=slave)
            self.fetched.append((master, slave, ids))
        return answer.status

    def fetch_again(self):
        """What was delivered is not delivered once more: the ledger would have it twice. IDs of epochs that
        are looked up no longer, after many starts, are refused as a stranger's."""
        fetched, self.fetched, self.again = self.fetched, [], True
        for master, slave, ids in fetched:
            self.unsure.update((slave, i) for i in ids)
            self._patiently("an answer to dec_keys", lambda w=(master, slave, ids): self.fetch(*w) in (200, 400, 401))
        self.fetched.clear()
        self.again = False

    def fetch_waiting(self, patient):
        """Fetches what was issued; with patience until there is an answer for all of it."""
        def all_answered():
            self.waiting = [w for w in self.waiting if self.fetch(*w) not in (200, 400)]
            return not self.waiting or not patient
        self._patiently("an answer to dec_keys", all_answered)

    def _patiently(self, what, probe):
        def there():
            if self.ended():
                raise Ended(f"{what}: {self.case.target} has ended\n{self.target.log()[-3000:]}")
            return probe()
        try:
            wait_for(what, there, 60, 0.1)
        except TimeoutError as error:
            raise Defect(f"{error}\n{self.target.log()[-3000:]}") from None

    # --- everything that is asked ------------------------------------------------------------------

    def rounds(self, number=2):
        """Every kind of request once: (what, call that says whether it worked)."""
        case = self.case
        for master, slave in (*case.pairs, *case.slowly):
            yield f"a key from {master} to {slave}", lambda m=master, s=slave: self.issue(m, s, number)
        if case.several:
            master, slave, *others = case.several
            yield "a key for several", lambda: self.issue(master, slave, 1, others)
        for one, other in case.streams:
            yield f"a stream from {one} to {other}", lambda a=one, b=other: self.stream(a, b)
        yield "an operator's look", self.look

    def stream(self, one, other):
        """A key stream of two applications: three keys, the same at both ends."""
        try:
            with self._app(one) as (a, here), self._app(other) as (b, there):
                opened = a.open(here, there)
                joined = b.open(there, here, opened.ksid) if opened.status == 0 else opened
                if joined.status:
                    return False
                for index in range(3):
                    got = [x.get(opened.ksid, index) for x in (a, b)]
                    if any(g.status for g in got):
                        return False
                    self._same_key(opened.ksid, index, *got)
                return a.close(opened.ksid) == 0 and b.close(opened.ksid) in (0, 3)
        except TimeoutError:
            raise Defect(f"004: no answer in {ANSWER_S} s") from None
        except (Closed, OSError) as error:
            self._note("004", type(error).__name__)
            return False

    @contextlib.contextmanager
    def _app(self, name):
        node = self.net.topology.home(name)
        app = App(self.net.endpoints[f"{node.name}/app"], self.net.pki, name, timeout=ANSWER_S)
        try:
            yield app, next(s for s in node.saes if s.name == name).uri(node)
        finally:
            app.close_connection()

    def _same_key(self, ksid, index, a, b):
        if a.key != b.key or a.index != b.index:
            raise Defect(f"004: index {index} of {ksid.hex()} differs at the two ends")
        self.ledger.issue([((ksid, index), a.key)])
        self.ledger.deliver([(ksid, index)], [((ksid, index), b.key)])

    def look(self):
        try:
            local = Local(self.net.admin_socket(self.case.target), timeout_s=ANSWER_S)
            for path in ("/metrics", "/api/v1/streams", "/healthz"):
                answer = local.request("GET", path)
                if answer.status not in (200, 500, 503):
                    raise Defect(f"{path}: {answer.status} {answer.body!r}")
                if answer.status == 200 and path.startswith("/api"):
                    json.loads(answer.body)
        except TimeoutError:
            raise Defect(f"admin: no answer in {ANSWER_S} s") from None
        except BROKEN as error:
            self._note("admin", type(error).__name__)
            return False
        return True

    def reload(self):
        with contextlib.suppress(ProcessFailed):
            self.target.signal(signal.SIGHUP)

    # --- under faults and without ----------------------------------------------------------------------

    def start_network(self):
        self.net.start()
        self.works()

    def start_others(self):
        """All but the one under faults."""
        others = [p for p in self.net.processes() if p is not self.target]
        for process in others:
            process.start()
        for process in others:
            process.wait_ready()

    def disturbed(self, enough=FOREVER, number=2):
        """Asks for everything while something may fail, until that many calls did; for so many keys
        at once."""
        self.hang_up()
        self.disturbing = True
        try:
            for _, call in self.rounds(number):
                call()
                self.fetch_waiting(patient=False)
                if self.ended() or self.control.fired >= enough:
                    return
        finally:
            self.disturbing = False

    def works(self):
        """Everything works, maybe in a moment, and what was issued before can be fetched."""
        if self.ended():
            raise Ended(f"{self.case.target} does not run: {self.target.log()[-3000:]}")
        self.hang_up()
        self.fetch_waiting(patient=True)
        for what, call in self.rounds():
            self._patiently(what, call)
            self.fetch_waiting(patient=True)
        self.ledger.check()

    def waits_for_restart(self):
        """Whether it refuses everything until it is started again, as the operations page says: what of
        the audit log reached the disk nobody knows then."""
        return bool(self.target.lines("audit", "event=sync_failed"))

    def ended(self):
        """Whether the gateway ended by itself; how it did is checked."""
        if self.target.pid is not None:
            return False
        self.check_end()
        return True

    def check_end(self):
        """It ended in order: with status 0 or 1, and it said why. Libraries that end the process when
        they get no memory are beyond its reach: as after a kill, the next start has to find all well."""
        status = self.target.exit_status
        if status in (-signal.SIGABRT, -signal.SIGSEGV) and self.control.fired and not self.control.fired_at.own:
            self.library_died = self.target.log()[-3000:]
            return
        if status not in (0, 1):
            raise Defect(f"{self.case.target} ended with status {status}\n{self.target.log()[-4000:]}")
        if status == 1 and not self.target.log().strip():
            raise Defect(f"{self.case.target} ended with status 1 and not a word")

    def start(self):
        """Whether the gateway got ready; else it refused in order."""
        self.target.start()
        try:
            self.target.wait_ready(60)
        except ProcessFailed:
            if self.target.pid is not None:
                raise Defect(f"{self.case.target} neither gets ready nor ends:\n{self.target.log()[-4000:]}") \
                    from None
            self.check_end()
            return False
        return True

    def crash(self):
        """It ends at once, whatever it is doing."""
        self.hang_up()
        if self.target.pid is not None:
            self.target.kill()

    def stop(self):
        self.hang_up()
        if self.target.pid is None:
            if self.target.exit_status is not None:
                self.check_end()
            return
        if not self.target.stop(60):
            raise Defect(f"{self.case.target} does not stop:\n{self.target.log()[-4000:]}")
        self.check_end()

    def end(self):
        """Stops everything; accounts of node key and the audit log are whole."""
        self.control.disarm()
        for account in accounts(self.net).values():
            check_account(account)
        self.net.stop()
