# SPDX-License-Identifier: Apache-2.0
"""qkdgatectl: every command, its exit statuses, and the doctor."""

import json
import os
import signal
import subprocess
import time

import pytest

from admin import ctl, local, over_https
from links import exchange
from network import binary
from processes import wait_for

VIEWS = ["status", "node", "streams", "stream a-to-b", "sources", "neighbours", "routes", "transfers", "saes",
         "limits", "certificates", "store", "logs", "rules", "accounting", "peers", "audit", "health", "health --ready"]


@pytest.fixture(scope="module")
def net(make_shared):
    return make_shared(admin=True, stock=2000)


@pytest.mark.parametrize("command", VIEWS)
def test_every_view_for_people_and_for_scripts(net, command):
    status, out, err = ctl(net, *command.split())
    assert (status, err) == (0, "") and out.strip() and "\033" not in out
    status, out, err = ctl(net, "--json", *command.split())
    assert (status, err) == (0, "") and isinstance(json.loads(out), dict)
    status, again, err = ctl(net, "--json", *command.split(), where=over_https(net))
    assert (status, err) == (0, "") and json.loads(again).keys() == json.loads(out).keys()


def test_tables_are_aligned_and_say_what_the_interface_says(net):
    _, out, _ = ctl(net, "streams")
    head, *rows = out.splitlines()
    for row, stream in zip(rows, local(net).get("/api/v1/streams")["streams"], strict=True):
        assert row.split()[:3] == [stream["name"], stream["neighbour"], stream["direction"]]
        for title in ("NEIGHBOUR", "DIRECTION", "STATE"):
            at = head.index(title)
            assert row[at - 1] == " " and row[at] != " "


def test_a_terminal_gets_colours(net):
    command = [str(binary("qkdgatectl")), "--socket", str(net.admin_socket("kme-a")), "status"]
    done = subprocess.run(["script", "-qec", " ".join(command), "/dev/null"], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=30)
    assert "\033[32m" in done.stdout, done


def test_watch_shows_it_again_and_again(net):
    with subprocess.Popen([binary("qkdgatectl"), "--socket", net.admin_socket("kme-a"), "--watch=1", "node"],
                          stdout=subprocess.PIPE, text=True) as process:
        seen = 0
        for line in process.stdout:
            seen += line.startswith("KME ")
            if seen == 2:
                break
        process.terminate()


@pytest.mark.parametrize("arguments,status,said", [
    (["strems"], 2, "is streams meant?"), (["xyzzy"], 2, "unknown command"), ([], 2, "usage:"),
    (["--jsn", "status"], 2, "is --json meant?"), (["stream"], 2, "usage: qkdgatectl stream NAME"),
    (["status", "too", "many"], 2, "usage:"), (["stream", "a-to-c"], 1, "is a-to-b meant?"),
    (["suspend", "sae-nobody"], 1, "no SAE"), (["log", "loud"], 1, "level: give"), (["zeroize"], 2, "--confirm"),
    (["--confirm", "KME-B", "zeroize"], 1, "confirm must be"), (["--grace", "x", "drain"], 2, "give a number"),
    (["--cert", "x", "status"], 2, "go with --url"), (["--master", "a,b", "doctor"], 2, "ID,URL,CERTIFICATE,KEY")])
def test_wrong_usage(net, arguments, status, said):
    got, out, err = ctl(net, *arguments)
    assert got == status and said in err, (got, out, err)


def test_what_cannot_be_reached_or_is_not_allowed(net, tmp_path):
    assert ctl(net, "status", where=["--socket", tmp_path / "none.sock"])[0] == 3
    assert ctl(net, "status", where=over_https(net, "alice"))[0] == 4
    status, _, err = ctl(net, "reload", where=over_https(net, "admin-viewer"))
    assert status == 4 and "may look" in err
    away = ["--url", "https://127.0.0.1:1", *over_https(net)[2:]]
    assert ctl(net, "status", where=away)[0] == 3
    where = over_https(net)
    where[1] = "http://127.0.0.1:1"
    assert ctl(net, "status", where=where)[0] == 2
    if os.geteuid() == 0:
        done = subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", binary("qkdgatectl"), "--socket",
                               net.admin_socket("kme-a"), "status"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 4, (done.returncode, done.stderr)


def sae(net, name):
    return f"sae-{name},{net.url(net.topology.home(name).name)},{net.pki / f'{name}.pem'},{net.pki / f'{name}.key'}"


def through(net, master="alice", slave="bob"):
    return ["--ca", net.pki / "ca.pem", "--master", sae(net, master), "--slave", sae(net, slave)]


def test_the_doctor_finds_nothing_on_a_healthy_node(net):
    exchange(net)
    for node in net.gateways:
        status, out, err = ctl(net, *through(net), "doctor", node=node)
        assert (status, err) == (0, ""), out
        assert "one key from master to slave" in out and "FINDING" not in out
    status, out, _ = ctl(net, *through(net), "--json", "doctor")
    assert status == 0 and json.loads(out)["findings"] == [] and len(json.loads(out)["passed"]) == 9


def test_the_doctor_says_why_a_pair_gets_no_key(net):
    status, out, _ = ctl(net, *through(net, "alice", "mallory"), "doctor")
    assert status == 1 and "SAE sae-alice got 401" in out and "audit log" in out


def test_the_doctor_names_the_streams_of_a_source_that_stopped(make_network):
    net = make_network(admin=True)
    net.sims["sim-a"].kill()
    status, out, _ = ctl(net, "doctor")
    assert status == 1
    for stream in ("a-to-b", "b-to-a"):
        assert f"stream {stream}: its source" in out, out
    assert "-> is the QKD module up?" in out
    net.sims["sim-a"].start()
    net.sims["sim-a"].wait_ready()
    wait_for("nothing to be found", lambda: ctl(net, "doctor")[0] == 0, 60, 0.5)


def test_the_doctor_names_a_neighbour_that_is_away(make_network):
    net = make_network(admin=True)
    net.gateways["kme-b"].kill()
    with net.client("alice") as alice:
        def found():
            alice.enc("sae-bob", number=64)
            status, out, _ = ctl(net, "doctor")
            return status == 1 and "neighbour KME-B cannot be reached" in out
        wait_for("the finding", found, 60, 0.3)
    net.restart("kme-b")


def test_completion_and_version(net):
    status, out, _ = ctl(net, "completion")
    assert status == 0 and "delete-keys" in out and "--socket" in out
    done = subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True, timeout=10)
    assert done.returncode == 0, done.stderr
    assert ctl(net, "--version")[1].startswith("qkdgatectl ") and "doctor" in ctl(net, "--help")[1]


def completed(net, *words):
    """What bash offers for the last word."""
    script = ('source <(qkdgatectl completion); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _qkdgatectl; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", "qkdgatectl", *words], text=True, capture_output=True, timeout=30,
                          env={**os.environ, "PATH": f"{binary('qkdgatectl').parent}:{os.environ['PATH']}",
                               "QKDGATE_SOCKET": str(net.admin_socket("kme-a"))})
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.split()


def test_completion_knows_commands_options_and_names(net, tmp_path):
    assert "delete-keys" in completed(net, "del") and "--master-key" in completed(net, "--mas")
    assert completed(net, "reopen", "a-") == ["a-to-b"]
    assert completed(net, "suspend", "sae-al") == ["sae-alice"]
    assert completed(net, "sae", "") == ["add", "remove"] and "verify" in completed(net, "audit", "ver")
    harm = f"$(touch${{IFS}}{tmp_path}/harm)"
    assert ctl(net, "sae", "add", harm, "uri=urn:sae:harm")[0] == 0
    assert ctl(net, "rule", "add", "ours", "sae-x", "sae-y")[0] == 0
    try:
        assert "sae-alice" in completed(net, "sae", "remove", "") and not (tmp_path / "harm").exists()
        assert completed(net, "rule", "remove", "") == ["ours"]
    finally:
        assert ctl(net, "sae", "remove", harm)[0] == 0 and ctl(net, "rule", "remove", "ours")[0] == 0


def test_health_does_not_wait_long_for_a_gateway_that_stands_still(make_network):
    net = make_network(admin=True)
    gateway = net.gateways["kme-a"]
    gateway.signal(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        status, _, err = ctl(net, "health", timeout_s=120)
        short = time.monotonic() - begun
        assert status == 3 and "timed out" in err, err
        begun = time.monotonic()
        assert ctl(net, "--timeout", "8", "health", timeout_s=120)[0] == 3
        assert short < time.monotonic() - begun  # what is given goes before
    finally:
        gateway.signal(signal.SIGCONT)
    wait_for("health", lambda: ctl(net, "health")[0] == 0, 60, 0.2)


def test_a_wrong_name_is_answered_with_the_near_one(net):
    for arguments, near in ((["suspend", "sae-alise"], "sae-alice"), (["resume", "sae-alice", "sae-bop"], "sae-bob"),
                            (["stream", "a-to-bb"], "a-to-b"), (["acounting"], "accounting"), (["--lime", "5", "audit"], "--lines"),
                            (["audit", "verify", "--mastr-key", "x"], "--master-key")):
        status, _, err = ctl(net, *arguments)
        assert status in (1, 2) and f"is {near} meant?" in err, (arguments, err)
