# SPDX-License-Identifier: Apache-2.0
"""Calls of a gateway that fail: a short sample of the sweep that `make faults` does whole, and the
faults that once did harm."""

import os
import random
import shutil
import signal
import subprocess

import pytest

from admin import Local
from control import FOREVER, FUNCTIONS, Control, library, under_faults
from network import binary, build_folder
from processes import wait_for
from sweep import Fault, Sweep

SEED = int(os.environ.get("QKDGATE_SEED", random.randrange(2 ** 31)))


@pytest.fixture
def sweep(request, e2e_folder, pki):
    sweeps = []

    def make(case):
        folder = e2e_folder / request.node.name
        shutil.rmtree(folder, ignore_errors=True)
        sweeps.append(Sweep(case, folder, pki))
        return sweeps[-1]
    yield make
    for s in sweeps:
        s.end()


SAMPLE = (("serve", "malloc"), ("serve", "pwrite"), ("serve", "fdatasync"), ("serve", "sqlite3_step"),
          ("serve", "gnutls_record_send"), ("serve", "curl_result"), ("serve", "accept4"), ("start", "pthread_create"),
          ("stop", "sqlite3_step"))


def test_one_fault_of_every_kind(sweep):
    """Whatever fails, the gateway answers an error or ends in order, and then all works again."""
    s = sweep("source")
    seen, reached = s.count(rounds=1), 0
    for phase, function in SAMPLE:
        fault = next(Fault(phase, site, FUNCTIONS[function][0]) for site in seen[phase]
                     if site.own and site.function == function)
        outcome = s.inject(fault)
        print(f"{outcome:<18}{fault}")
        reached += outcome != "not reached"
    assert reached >= 3


def check_config(net, node, control):
    """Exit status and words of check-config under faults."""
    environment = {**os.environ, "LD_PRELOAD": str(library(build_folder())), "QG_FAULTS": str(control.path)}
    done = subprocess.run([binary("qkdgate"), "check-config", net.config_file(node)], env=environment,
                          capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@pytest.mark.parametrize("function", ["malloc", "realloc", "calloc"])
def test_a_configuration_that_gets_no_memory_is_refused(make_network, function):
    """Wherever memory ends while a configuration is read: lists half read are given back once."""
    net = make_network(start=False)
    control = Control(net.folder / "faults", binary("qkdgate"))
    control.arm(function, own=True, skip=1 << 30)
    assert check_config(net, "kme-a", control) == (0, "")
    # What counts for `make coverage` is written at the end, by calls of its own.
    calls = sum(s.calls for s in control.sites()
                if s.own and s.function == function and not s.caller.startswith("gcov_"))
    rng = random.Random(SEED)
    for skip in sorted(rng.sample(range(calls), min(calls, 15))):
        control.arm(function, own=True, skip=skip)
        status, words = check_config(net, "kme-a", control)
        assert control.fired
        assert status == 1 and "out of memory" in words or status == 0, f"call {skip} of {calls}: {status} {words}"


def test_a_segment_that_cannot_be_restored_ends_the_start_in_order(make_network):
    net = make_network()
    gateway = net.gateways["kme-a"]
    gateway.stop()
    control = Control(net.folder / "faults", binary("qkdgate"))
    control.arm("realloc", own=True, skip=1 << 30)
    plain = list(gateway.arguments)
    under_faults(gateway, control, build_folder())
    net.restart("kme-a")
    site, = control.find("realloc", "qg_epoch_add") or control.find("realloc", "epoch_make_room")
    gateway.stop()
    control.arm("realloc", site=site)
    gateway.start()
    gateway.wait_end()
    assert control.fired and gateway.exit_status == 1
    assert gateway.lines("event=start_failed", "out of memory")
    gateway.arguments = plain
    net.restart("kme-a")


@pytest.fixture(scope="module")
def scenario(e2e_folder, pki):
    """A network at work; each test leaves it so."""
    folder = e2e_folder / "scenario"
    shutil.rmtree(folder, ignore_errors=True)
    one = Sweep("source", folder, pki)
    yield one.begin()
    one.end()


@pytest.mark.parametrize("function", ["gnutls_x509_crt_import", "gnutls_x509_crt_get_subject_alt_name",
                                      "gnutls_x509_crt_get_dn_by_oid"])
def test_a_certificate_that_gets_no_memory_is_read_with_the_next_request(scenario, function):
    """A kept connection is looked at again after a reload: without memory it is refused, not for good."""
    target, net, control = scenario.target, scenario.net, scenario.control
    with net.client("alice") as alice:
        assert alice.status("sae-bob").status == 200
        reloads = len(target.lines("event=reloaded"))
        target.signal(signal.SIGHUP)
        wait_for("the reload", lambda: len(target.lines("event=reloaded")) > reloads, 60)
        control.arm(function, FUNCTIONS[function][1], own=True, times=FOREVER)
        assert alice.status("sae-bob").status == 401
        assert control.fired
        control.disarm()
        assert alice.status("sae-bob").status == 200


def reload_with(scenario, skip):
    """Whether the reload ended in order, taken or refused, when GnuTLS gets no memory for a certificate."""
    target, before = scenario.target, len(scenario.target.lines("event=reload"))
    memory = FUNCTIONS["gnutls_x509_crt_import"][1]
    scenario.control.arm("gnutls_x509_crt_import", memory, own=False, skip=skip)
    scenario.reload()
    wait_for("the end of the reload", lambda: target.pid is None or len(target.lines("event=reload")) > before, 30)
    return target.pid is not None


def test_authorities_that_get_no_memory_refuse_the_reload(scenario):
    """What GnuTLS released already is not released again."""
    control = scenario.control
    control.forget_sites()
    assert reload_with(scenario, 1 << 30)
    calls = sum(s.calls for s in control.sites() if not s.own and s.function == "gnutls_x509_crt_import")
    for skip in range(calls):
        assert reload_with(scenario, skip), f"call {skip} of {calls}: {scenario.target.log()[-2000:]}"
    control.disarm()
    assert scenario.target.lines("event=reload_refused")
    scenario.works()


def test_a_connection_that_cannot_be_watched_is_ended(scenario):
    """Of a connection of key streams whose events cannot be chosen nothing would be heard any more: it is
    ended, so that the application calls again and does not wait for its time to be over."""
    sites = scenario.control.find("epoll_ctl", "run")
    assert sites
    for site in sites:
        scenario.control.arm("epoll_ctl", site=site, times=FOREVER)
        scenario.stream("alice", "bob")  # anything but silence
        assert scenario.control.fired
        scenario.control.disarm()
        scenario.works()


def test_an_answer_to_an_operator_is_whole_or_none(scenario):
    """Wherever memory ends while it is built: no stream and no member is left out in silence."""
    site, = scenario.control.find("malloc", "take_block")
    local = Local(scenario.net.admin_socket("kme-a"), timeout_s=60)
    whole = [sorted(s) for s in local.request("GET", "/api/v1/streams").json["streams"]]
    statuses = set()
    for skip in range(0, 60, 3):
        scenario.control.arm("malloc", site=site, own=True, skip=skip)
        answer = local.request("GET", "/api/v1/streams")
        statuses.add(answer.status)
        assert answer.status == 503 or [sorted(s) for s in answer.json["streams"]] == whole
    scenario.control.disarm()
    assert 503 in statuses and statuses <= {200, 503}
    scenario.works()


def test_nothing_is_handed_out_beyond_a_synced_anchor(scenario):
    """The error of a sync is heard: no lease goes on until the anchor is on the disk again."""
    site, = scenario.control.find("fdatasync", "qg_anchor_write")
    scenario.control.arm("fdatasync", site=site, times=FOREVER)

    def refused():
        scenario.issue("alice", "bob", 128)
        return scenario.target.lines("event=lease_not_saved")
    wait_for("a lease that is not saved", refused, 60)
    assert scenario.target.lines("event=anchor_not_written")
    scenario.control.disarm()
    scenario.works()


def test_a_body_that_gets_no_memory_is_not_called_bad(scenario):
    """Wherever memory ends while JSON is read: the application may ask the same again."""
    site, = scenario.control.find("malloc", "take_block")
    answers, fired = [], 0
    with scenario.net.client("alice") as alice:
        for skip in range(12):
            scenario.control.arm("malloc", site=site, skip=skip)
            answers.append(alice.status("sae-bob").status if skip % 2 else alice.enc("sae-bob", number=1).status)
            fired += scenario.control.fired
    scenario.control.disarm()
    assert fired and set(answers) <= {200, 500, 503}, answers
    scenario.works()
