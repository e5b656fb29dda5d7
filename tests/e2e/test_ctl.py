# SPDX-License-Identifier: Apache-2.0
"""qkdgatectl: every command, its exit statuses, and the doctor."""

import datetime
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from admin import ctl, local, over_https
from links import exchange
from network import binary
from processes import wait_for

VIEWS = ["status", "node", "streams", "stream a-to-b", "sources", "neighbours", "routes", "transfers", "saes",
         "limits", "certificates", "store", "logs", "rules", "accounting", "peers", "audit", "alarms",
         "health", "health --ready"]


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
                          stdin=subprocess.DEVNULL, timeout=120)
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
                               net.admin_socket("kme-a"), "status"], capture_output=True, text=True, timeout=120)
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


def expiring(pki, name, days):
    """A copy of a certificate of the demo authority that ends so soon."""
    old = x509.load_pem_x509_certificate((pki / f"{name}.pem").read_bytes())
    authority = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    key = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(authority.subject).public_key(
        old.public_key()).serial_number(x509.random_serial_number()).not_valid_before(
        now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=days, hours=12))
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    path = pki / f"{name}-{days}-days.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def test_alarms_are_those_of_the_gateway_and_of_the_doctor(make_network):
    net = make_network(admin=True, start=False)
    soon = expiring(net.pki, "kme-a", 10)
    net.write_config("kme-a", lambda c: c["admin"]["listener"].update(certificate=str(soon)))
    net.start()
    net.wait_stock("alice", "bob", 100)
    net.wait_stock("bob", "alice", 100)
    status, out, _ = ctl(net, "alarms")
    assert status == 0 and "warning" in out and "admin.listener: certificate" in out and "expires in 10 days" in out, out
    assert ctl(net, "suspend", "sae-dave")[0] == 0
    alarms = local(net).get("/api/v1/alarms")["alarms"]
    assert [a["severity"] for a in alarms] == ["warning", "notice"] and "sae-dave" in alarms[1]["finding"]
    status, out, _ = ctl(net, "--json", "doctor")
    assert status == 1 and [f["finding"] for f in json.loads(out)["findings"]] == [alarms[0]["finding"]]
    soon.write_bytes((net.pki / "kme-a.pem").read_bytes())
    assert ctl(net, "reload")[0] == 0 and ctl(net, "resume", "sae-dave")[0] == 0
    assert ctl(net, "alarms")[1] == "no alarms\n" and ctl(net, "doctor")[0] == 0


# --- passwords ------------------------------------------------------------------------------------------------

def hash_password(*arguments, typed="", binary_input=False):
    done = subprocess.run([binary("qkdgatectl"), "hash-password", *arguments], input=typed, capture_output=True,
                          text=not binary_input, timeout=180)
    return done.returncode, done.stdout, done.stderr


def test_passwords_come_from_standard_input(net):
    status, out, err = hash_password("carol", typed="correct horse\nnot this\n")
    assert (status, err) == (0, "") and out.startswith("carol:$argon2id$v=19$m=65536,t=3,p=1$") and out.endswith("\n")
    status, out, _ = hash_password("night", "read_only", typed="correct horse")
    assert status == 0 and out.endswith(":read_only\n")
    for arguments, typed in ((["carol"], ""), (["carol"], "short\n"), (["carol"], "x" * 1025), (["carol"], "x" * 5000),
                             (["a:b"], "correct horse"), (["carol", "admin"], "correct horse"), ([], "correct horse"),
                             (["carol", "read_only", "x"], "correct horse")):
        status, out, err = hash_password(*arguments, typed=typed)
        assert (status, out) == (2, "") and err and "correct horse" not in err, (arguments, typed)


def at_a_terminal(keys):
    """What a person sees who asks for a line and types these keys, each after a prompt; and the exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(binary("qkdgatectl"), ["qkdgatectl", "hash-password", "carol"])
    seen = b""

    def more():
        """False: it has ended."""
        nonlocal seen
        assert select.select([terminal], [], [], 120)[0], seen
        try:
            data = os.read(terminal, 1000)
        except OSError:
            data = b""
        seen += data
        return bool(data)

    try:
        for prompt, typed in keys:
            while prompt not in seen:
                assert more(), seen
            os.write(terminal, typed)
        while more():
            pass
    finally:
        os.close(terminal)  # which ends it, too
    return seen.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_terminal_shows_no_password():
    seen, status = at_a_terminal([(b"Password: ", b"correct horse\n"), (b"Once more: ", b"correct horse\n")])
    assert status == 0 and "carol:$argon2id$" in seen and "correct horse" not in seen
    seen, status = at_a_terminal([(b"Password: ", b"correct horse\n"), (b"Once more: ", b"correct house\n")])
    assert status == 2 and "not the same" in seen and "correct ho" not in seen
    seen, status = at_a_terminal([(b"Password: ", b"correct\x03")])
    assert status == 2 and "argon2id" not in seen


def test_completion_and_version(net):
    status, out, _ = ctl(net, "completion")
    assert status == 0 and "delete-keys" in out and "--socket" in out
    done = subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ctl(net, "--version")[1].startswith("qkdgatectl ") and "doctor" in ctl(net, "--help")[1]


def completed(net, *words):
    """What bash offers for the last word."""
    script = ('source <(qkdgatectl completion); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _qkdgatectl; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", "qkdgatectl", *words], text=True, capture_output=True, timeout=120,
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
        for _ in range(5):  # the machine may have waited, not the command
            begun = time.monotonic()
            status, _, err = ctl(net, "health")
            short = time.monotonic() - begun
            assert status == 3 and "timed out" in err, err
            if short < 8:
                break
        begun = time.monotonic()
        assert ctl(net, "--timeout", "8", "health")[0] == 3
        assert short < 8 <= time.monotonic() - begun  # what is given goes before
    finally:
        gateway.signal(signal.SIGCONT)
    wait_for("health", lambda: ctl(net, "health")[0] == 0, 60, 0.2)


def test_a_wrong_name_is_answered_with_the_near_one(net):
    for arguments, near in ((["suspend", "sae-alise"], "sae-alice"), (["resume", "sae-alice", "sae-bop"], "sae-bob"),
                            (["stream", "a-to-bb"], "a-to-b"), (["acounting"], "accounting"), (["--lime", "5", "audit"], "--lines"),
                            (["audit", "verify", "--mastr-key", "x"], "--master-key")):
        status, _, err = ctl(net, *arguments)
        assert status in (1, 2) and f"is {near} meant?" in err, (arguments, err)


# --- progress ----------------------------------------------------------------------------------------------------

BAR = re.compile(r"\r\033\[K\[([#.]{24})\] ([^\r]*), \d+ s")


def on_a_terminal(net, *arguments, term="xterm", timeout_s=300):
    """What a terminal is sent, and the exit status."""
    command = shlex.join(["env", f"TERM={term}", str(binary("qkdgatectl")), "--socket", str(net.admin_socket("kme-a")),
                          *map(str, arguments)])
    done = subprocess.run(["script", "-qec", command, "/dev/null"], capture_output=True, stdin=subprocess.DEVNULL,
                          timeout=timeout_s)
    return done.returncode, done.stdout.decode().replace("\r\n", "\n")


def test_the_doctor_shows_how_far_it_is_on_a_terminal_alone(net):
    exchange(net)
    status, text = on_a_terminal(net, *through(net), "doctor")
    assert status == 0 and "one key from master to slave" in text
    bars = BAR.findall(text)
    assert {what for _, what in bars} >= {"clock", "sources", "one key from master to slave"}
    filled = [cells.count("#") for cells, _ in bars]
    assert filled == sorted(filled) and filled[-1] > filled[0]
    # It is gone when a line is written, and at the end.
    assert not [line for line in text.split("\n") if "#" in line.rpartition("\033[K")[2]]
    assert not BAR.search(text.rpartition("\r\033[K")[2])
    for quiet in (ctl(net, *through(net), "doctor")[1:], (on_a_terminal(net, "--json", "doctor")[1],),
                  (on_a_terminal(net, "doctor", term="dumb")[1],)):
        assert not any("\033[K" in text for text in quiet)


def test_an_error_stands_on_a_line_of_its_own(net):
    status, text = on_a_terminal(net, "log", "loud")
    assert status == 1 and re.search(r"(^|\033\[K|\n)qkdgatectl: level: give", text), text


def test_draining_shows_its_end_on_a_terminal(make_network):
    net = make_network(admin=True)
    status, text = on_a_terminal(net, "--grace", "2", "drain")
    assert status == 0 and "done: drain" in text and "stopped" in text, text
    seen = [(cells.count("#"), what) for cells, what in BAR.findall(text)]
    waiting = [n for n, what in seen if what == "keys can still be fetched"]
    assert waiting and waiting == sorted(waiting)
    wait_for("its end", lambda: net.gateways["kme-a"].pid is None, 30)
    assert net.gateways["kme-a"].exit_status == 0


def test_zeroizing_shows_that_something_is_done(make_network):
    net = make_network(admin=True)
    status, text = on_a_terminal(net, "--confirm", "KME-A", "zeroize")
    assert status == 0 and "done: zeroize" in text, text
    wait_for("its end", lambda: net.gateways["kme-a"].pid is None, 30)
