# SPDX-License-Identifier: Apache-2.0
"""The procedures of docs/operations.md, run as they stand there: each node is a machine of its own as far as
its files go, with /usr, /etc, /var and /run laid over those of this one, of which nothing is changed."""

import os
import re
import shutil
import signal
import subprocess
import tarfile

import pytest

from links import issue
from network import PROJECT, binary
from processes import wait_for

PAGE = PROJECT / "docs/operations.md"
UNIT = PROJECT / "docs/systemd/qkdgate.service"
NAMES = ["install", "first", "start", "through", "certificates", "backup", "restore", "reset", "upgrade", "anew"]

LAY_OVER = """
mkdir -p "$1"
mount -t tmpfs -o mode=0755 over "$1"
for d in usr etc var; do
	mkdir "$1/$d" "$1/$d.work"
	mount -t overlay overlay -o "lowerdir=/$d,upperdir=$1/$d,workdir=$1/$d.work" "/$d"
done
mount -t tmpfs -o mode=0755 run /run
cp "$2" /usr/bin/systemctl
echo ready
exec sleep infinity
"""


def procedures():
    """{name: its commands}, as the page has them."""
    found = {}
    blocks = re.findall(r"^( *)<!-- tried: (\w+) -->\n *```sh\n(.*?)^ *```$", PAGE.read_text(), re.M | re.S)
    for indent, name, text in blocks:
        lines = [line.removeprefix(indent) for line in text.splitlines()]
        found.setdefault(name, []).append("\n".join(lines) + "\n")
    return {name: "".join(parts) for name, parts in found.items()}


class Machine:
    """A node's files. Commands run in its view; its processes are ended with it."""

    def __init__(self, folder, name):
        self.name, self.home = name, folder / f"{name}-home"
        self.home.mkdir(parents=True)
        self._over = folder / f"{name}-over"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", LAY_OVER, "sh", self._over,
             PROJECT / "tests/e2e/systemctl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self._holder.stdout.readline() != "ready\n":
            why = self._holder.stderr.read()
            self.end()
            pytest.skip(f"no file systems can be laid over others here: {why.strip()[-200:]}")

    def ask(self, text, cwd=None):
        return subprocess.run(["nsenter", "-t", str(self._holder.pid), "-m", f"--wd={cwd or self.home}", "sh", "-eux", "-c",
                              text], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                             env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                                  "BUILD": os.environ.get("QKDGATE_BUILD", "build")})

    def sh(self, text, cwd=None, good=True):
        done = self.ask(text, cwd)
        assert (done.returncode == 0) is good, f"{text}\n{done.stdout}\n{done.stderr}\n{self.said()}"
        return done.stdout + done.stderr

    def run(self, name, cwd=None):
        """A procedure of the page, for this node."""
        return self.sh(procedures()[name].replace("node=kme-a", f"node={self.name}"), cwd)

    def said(self):
        done = subprocess.run(["nsenter", "-t", str(self._holder.pid), "-m", "cat", "/run/qkdgate.said"],
                              capture_output=True, text=True)
        return done.stdout

    def end(self):
        if self._holder.poll() is None:
            subprocess.run(["nsenter", "-t", str(self._holder.pid), "-m", "sh", "-c",
                            'pid=$(cat /run/qkdgate.pid) && kill -TERM "$pid" && for i in $(seq 300); do '
                            'kill -0 "$pid" || exit 0; sleep 0.1; done; kill -KILL "$pid"'], capture_output=True)
            self._holder.send_signal(signal.SIGKILL)
        self._holder.wait()
        self._holder.stdout.close()
        self._holder.stderr.close()
        shutil.rmtree(self._over, ignore_errors=True)


def on_a_machine(value):
    """A configuration whose files lie where the unit and the page have them."""
    if isinstance(value, dict):
        return {k: on_a_machine(v) for k, v in value.items()}
    if isinstance(value, list):
        return [on_a_machine(v) for v in value]
    return value.removeprefix("pki/") if isinstance(value, str) else value


def describe(name, config):
    config.update(on_a_machine(config))
    config["store"].update(database="/var/lib/qkdgate/keys.db", anchor="/var/lib/qkdgate-anchor/anchor",
                           key_ring="/var/lib/qkdgate-anchor/key-ring", master_key="/etc/qkdgate/master.key")
    config["audit"]["file"] = "/var/log/qkdgate/audit.log"
    config["admin"]["socket"] = "/run/qkdgate/admin.sock"


class Site:
    """A pair of machines and the link between them."""

    def __init__(self, net, folder):
        self.net, self.folder, self.machines = net, folder, {}

    def machine(self, name):
        """A new one under that name, in the place of one that is lost."""
        if name in self.machines:
            self.machines.pop(name).end()
            shutil.rmtree(self.folder / f"{name}-home")
        machine = self.machines[name] = Machine(self.folder, name)
        for file in (f"{name}.pem", f"{name}.key", "ca.pem", "crl.pem", "alice.pem", "alice.key", "bob.pem", "bob.key"):
            shutil.copy(self.net.pki / file, machine.home)
        machine.run("install", cwd=PROJECT)
        return machine

    def first_start(self, name):
        machine = self.machine(name)
        machine.run("first")
        shutil.copy(self.net.config_file(name), machine.home / "qkdgate.yaml")
        machine.sh("install -m 0644 qkdgate.yaml /etc/qkdgate/qkdgate.yaml")
        machine.run("start")
        return machine

    def through(self, name="kme-a"):
        """One key, by the page's doctor; it names other ports."""
        text = procedures()["through"]
        for port, node in (("8443", "kme-a"), ("9443", "kme-b")):
            assert port in text
            text = text.replace(port, str(self.net.endpoints[f"{node}/sae"][1]))
        last = None

        def healthy():
            nonlocal last
            last = self.machines[name].ask(text)
            return last.returncode == 0 and "one key from master to slave" in last.stdout
        try:
            wait_for("a doctor who finds nothing", healthy, 60, 0.3)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{last.stdout}{last.stderr}\n{self.machines[name].said()}") from None

    def keys(self, master="alice", slave="bob", number=4):
        with self.net.client(master) as client:
            return issue(client, f"sae-{slave}", number, 60)

    def fetch(self, keys, master="alice", slave="bob"):
        with self.net.client(slave) as client:
            return client.dec(f"sae-{master}", *(i for i, _ in keys))


@pytest.fixture(scope="module")
def site(make_shared, e2e_folder):
    if os.geteuid() != 0:
        pytest.skip("only root lays file systems over others")
    net = make_shared(start=False, admin=True, tweak=describe)
    folder = e2e_folder / "machines"
    shutil.rmtree(folder, ignore_errors=True)
    site = Site(net, folder)
    try:
        for sim in net.sims.values():
            sim.start()
        for sim in net.sims.values():
            sim.wait_ready()
        site.first_start("kme-a")
        site.first_start("kme-b")
        site.through()
        yield site
    finally:
        for machine in site.machines.values():
            machine.end()


# --- the page ----------------------------------------------------------------------------------------------------

def test_every_procedure_is_tried_here():
    assert sorted(procedures()) == sorted(NAMES)
    source = (PROJECT / "tests/e2e/test_operations.py").read_text()
    for name in NAMES:
        assert f'run("{name}"' in source or f'procedures()["{name}"]' in source, name


# --- the unit ----------------------------------------------------------------------------------------------------

def test_the_unit_is_good_and_confined(tmp_path):
    unit = tmp_path / "qkdgate.service"
    unit.write_text(UNIT.read_text().replace("@PREFIX@/bin/qkdgate", str(binary("qkdgate"))))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True).stdout.split()[1]
    exposure = re.search(r"Overall exposure level for \S+: (\S+)", done.stdout)[1]
    said, of = re.search(r"exposure (\S+) of 10 with systemd (\d+)", PAGE.read_text()).groups()
    assert version != of or exposure == said


# --- the procedures ----------------------------------------------------------------------------------------------

def test_nothing_here_was_changed(site):
    """The machines have the user, the programs and the files; this one has not."""
    for path in ("/etc/qkdgate", "/var/lib/qkdgate", "/var/log/qkdgate", "/usr/bin/qkdgate", "/run/qkdgate"):
        assert site.machines["kme-a"].sh(f"ls -d {path}").split()[-1] == path
        assert not os.path.exists(path), path
    assert "qkdgate:" not in open("/etc/passwd").read()
    assert site.machines["kme-a"].sh("getent passwd qkdgate")


def test_what_runs_is_not_root_and_its_files_are_its_own(site):
    machine = site.machines["kme-a"]
    assert "qkdgate" in machine.sh("ps -o user= -p $(cat /run/qkdgate.pid)")
    assert machine.sh("stat -c %a:%U /var/lib/qkdgate /var/log/qkdgate/audit.log /etc/qkdgate/kme-a.key "
                      "/etc/qkdgate/master.key 2>/dev/null").split("\n")[:4] == [
                          "700:qkdgate", "600:qkdgate", "400:qkdgate", "600:qkdgate"]


def test_new_certificates(site):
    machine = site.machines["kme-b"]
    out = machine.run("certificates")
    assert "kms" in out and "event=reloaded" in machine.said()
    (machine.home / "kme-b.pem").write_text("no certificate\n")
    text = procedures()["certificates"].replace("node=kme-a", "node=kme-b")
    machine.sh(text, good=False)  # check-config says so, and nothing is reloaded
    shutil.copy(site.net.pki / "kme-b.pem", machine.home)
    machine.run("certificates")
    site.through()


def test_an_upgrade_keeps_what_was_handed_out(site):
    keys = site.keys()
    site.machines["kme-b"].run("upgrade", cwd=PROJECT)
    got = site.fetch(keys)
    assert got.status == 200 and got.keys() == keys
    assert site.fetch(keys).status == 400
    site.through()


def test_a_backup_holds_no_key_and_brings_a_lost_machine_back(site):
    machine = site.machines["kme-a"]
    undelivered = site.keys("bob", "alice")
    before = machine.sh("cat /var/log/qkdgate/audit.log")
    machine.run("backup")
    kept = site.folder / "qkdgate-backup.tar.gz"
    shutil.copy(machine.home / "qkdgate-backup.tar.gz", kept)
    assert kept.stat().st_mode & 0o077 == 0 or (machine.home / kept.name).stat().st_mode & 0o077 == 0
    with tarfile.open(kept) as archive:
        names = archive.getnames()
    assert {"etc/qkdgate/qkdgate.yaml", "etc/qkdgate/kme-a.key", "var/log/qkdgate/audit.log"} <= set(names)
    assert not [n for n in names if re.search(r"keys\.db|anchor|key-ring|master", n)]
    machine = site.machine("kme-a")
    shutil.copy(kept, machine.home)
    machine.run("restore")
    site.through()
    # What the lost machine held for others to fetch there is lost with it, and never another key.
    assert site.fetch(undelivered, "bob", "alice").status in (400, 401)
    old = machine.sh("cat /var/log/qkdgate-before/audit.log")
    assert before.splitlines()[1] in old


def test_after_a_restore_of_the_database_all_key_is_given_up(site):
    machine = site.machines["kme-a"]
    machine.sh("systemctl stop qkdgate; cp -a /var/lib/qkdgate /var/lib/qkdgate-old; systemctl start qkdgate")
    site.through()
    # The database alone is old: the anchor says so, and the gateway ends its epochs by itself.
    keys = site.keys()
    machine.sh("systemctl stop qkdgate; rm -r /var/lib/qkdgate; cp -a /var/lib/qkdgate-old /var/lib/qkdgate; "
               "systemctl start qkdgate")
    assert "event=epochs_ended" in machine.said()
    site.through()
    fresh = site.keys(number=64)
    assert not {k for _, k in keys} & {k for _, k in fresh} and not {i for i, _ in keys} & {i for i, _ in fresh}
    # Both are old, as in a snapshot: nobody can know, so the operator says it.
    machine.sh("systemctl stop qkdgate; rm -rf /var/lib/qkdgate-old; cp -a /var/lib/qkdgate /var/lib/qkdgate-old; "
               "cp -a /var/lib/qkdgate-anchor /var/lib/qkdgate-anchor-old; systemctl start qkdgate")
    site.through()
    keys = site.keys()
    machine.sh("systemctl stop qkdgate; rm -r /var/lib/qkdgate /var/lib/qkdgate-anchor; "
               "cp -a /var/lib/qkdgate-old /var/lib/qkdgate; cp -a /var/lib/qkdgate-anchor-old /var/lib/qkdgate-anchor")
    machine.run("reset")
    site.through()
    fresh = site.keys(number=64)
    assert not {k for _, k in keys} & {k for _, k in fresh} and not {i for i, _ in keys} & {i for i, _ in fresh}


def test_beginning_anew_without_the_master_key(site):
    machine = site.machines["kme-b"]
    machine.run("anew")
    site.through("kme-b")
    assert set(machine.sh("ls /var/lib/qkdgate-lost 2>/dev/null").split()) >= {"keys.db", "anchor", "key-ring", "audit.log",
                                                                              "master.key"}
