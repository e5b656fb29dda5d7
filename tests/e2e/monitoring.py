# SPDX-License-Identifier: Apache-2.0
"""What is handed out for monitoring, in a real Prometheus: its rules fire when something is wrong with a running
network, and end when it is right again; every expression of the dashboard has an answer. `make monitoring-test`."""

import json
import re
import resource
import shutil
import signal
import subprocess
import threading

import pytest

from admin import ctl
from client import Client
from network import PROJECT
from processes import wait_for
from prometheus import RULES, SCRAPE_MS, Prometheus, alarms
from topology import pair

FOLDER = PROJECT / "docs/monitoring"
A, B = "kme-a", "kme-b"


def shell(*arguments, **options):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=120, **options)


class Repeat(threading.Thread):
    """Does something again and again, each time `pause_s` later, until it is ended; its failures are kept."""

    def __init__(self, what, pause_s):
        super().__init__(daemon=True)
        self._what, self._pause_s, self._over, self.count, self.failure = what, pause_s, threading.Event(), 0, None
        self.start()

    def run(self):
        while not self._over.wait(self._pause_s):
            try:
                self._what()
                self.count += 1
            except Exception as error:  # the gateway may be stopped meanwhile
                self.failure = error

    def end(self):
        self._over.set()
        self.join(60)
        assert self.count, self.failure


# --- the files ---------------------------------------------------------------------------------------------------

def test_promtool_takes_the_rules_and_their_tests():
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        done = shell("promtool", *command, cwd=FOLDER)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alarm_has_a_test_of_its_own():
    """In which it is expected once, and not expected before and after."""
    text = (FOLDER / "alerts.test.yml").read_text()
    for name in alarms():
        assert re.search(rf"alertname: {name}\n\s+exp_alerts:", text), name
        assert len(re.findall(rf"alertname: {name}\}}", text)) >= 1, name


def test_a_rule_that_is_broken_fails_its_test(tmp_path):
    """The tests do see what the rules say."""
    for name in ("alerts.yml", "alerts.test.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    rules = RULES.read_text()
    for expression, other in (('up{job="qkdgate"} == 0', 'up == 0'), ("qkdgate_ready == 0", "qkdgate_ready == 2"),
                              ("[1h]) > 3", "[1h]) > 30"), ("14 * 86400", "16 * 86400"), ("for: 10m", "for: 15m")):
        assert expression in rules
        (tmp_path / "alerts.yml").write_text(rules.replace(expression, other))
        assert shell("promtool", "test", "rules", "alerts.test.yml", cwd=tmp_path).returncode != 0, expression


def test_the_configuration_of_the_containers_is_good(tmp_path):
    text = (PROJECT / "docker/monitoring/prometheus.yml").read_text()
    assert "rule_files: [/etc/prometheus/alerts.yml]" in text
    shutil.copy(RULES, tmp_path)
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/alerts.yml", "alerts.yml"))
    done = shell("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    compose = (PROJECT / "docker/compose.monitoring.yaml").read_text()
    for name in ("alerts.yml", "grafana.json"):
        assert f"../docs/monitoring/{name}:" in compose and (FOLDER / name).exists()


# --- a network ---------------------------------------------------------------------------------------------------

def short_lived(net, node):
    """A certificate that ends in five days; the good one stays beside it."""
    pki = net.pki
    shutil.copy(pki / f"{node}.pem", pki / f"{node}.good")
    template = net.folder / "template"
    template.write_text(f'cn = "{node.upper()}"\ndns_name = "{node}.demo"\ndns_name = "localhost"\n'
                        'ip_address = "127.0.0.1"\ntls_www_server\ntls_www_client\nsigning_key\nexpiration_days = 5\n')
    done = shell("certtool", "--generate-certificate", "--load-privkey", pki / f"{node}.key", "--load-ca-certificate",
                 pki / "ca.pem", "--load-ca-privkey", pki / "ca.key", "--template", template, "--no-text", "--outfile",
                 pki / f"{node}.pem")
    assert done.returncode == 0, done.stderr


def limit_files(net, node, size):
    resource.prlimit(net.gateways[node].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def forge(net):
    """A message under the neighbour's certificate that no gateway sends."""
    with Client(net.url(A, "kms"), net.pki / "ca.pem", net.pki / "kme-b.pem", net.pki / "kme-b.key") as other:
        assert other.request("POST", "/api/v1/kms/forward_keys", body={"version": 1}).status == 400


@pytest.fixture
def net(make_network):
    net = make_network(topology=pair(node_chunks=1024), start=False, admin=True)
    log = net.folder / "kme-a.own.log"
    for name in net.gateways:
        net.write_config(name, lambda config: config.update(limits={"kms_timeout_ms": 1000}))
    net.write_config(A, lambda config: config.update(limits={"kms_timeout_ms": 1000},
                                                     log={"to": "file", "file": str(log)}))
    short_lived(net, A)
    log.symlink_to(log)  # cannot be opened
    for process in net.processes():
        process.start()
    for process in net.processes():
        if process.name != A:
            process.wait_ready()
    net.wait_stock("alice", "bob", 3000)
    net.wait_stock("bob", "alice", 3000)
    return net


@pytest.fixture
def prometheus(net):
    prometheus = Prometheus(net.folder / "prometheus",
                            {name: net.endpoints[f"{name}/scrape"] for name in net.gateways})
    yield prometheus
    prometheus.end()


def work(net):
    """Keys both ways, several slaves, a refusal: so that every figure has been counted once."""
    with net.client("alice") as alice, net.client("bob") as bob:
        def several():
            return alice.enc("sae-bob", additional_slave_SAE_IDs=["sae-erin"]).status == 200
        assert alice.request("GET", "/nowhere").status == 404
        keys = alice.enc("sae-bob", number=4).keys()
        assert bob.dec("sae-alice", *(i for i, _ in keys)).status == 200
        wait_for("keys for several", several, 60, 0.2)


def test_the_dashboard_and_the_alarms(net, prometheus):
    work(net)
    dashboard(prometheus)
    trouble_without_outage(net, prometheus)
    no_key(net, prometheus)
    nobody_there(net, prometheus)
    fired = {labels["alertname"] for labels, _ in prometheus.ask("count by (alertname) (count_over_time("
                                                                 'ALERTS{alertstate="firing"}[1h]))')}
    assert fired == set(alarms())


def dashboard(prometheus):
    """Every expression, for every gateway and for each."""
    wait_for("some scrapes", lambda: prometheus.ask("min(count_over_time(qkdgate_ready[10s])) >= 8"), 60, 0.2)
    board = json.loads((FOLDER / "grafana.json").read_text())
    expressions = [t["expr"] for p in board["panels"] for t in p.get("targets", ())]
    assert len(expressions) > 30
    for expression in expressions:
        assert "$instance" in expression, expression
        for instance in (".*", A, B):
            asked = expression.replace("$instance", instance).replace("$__rate_interval", f"{8 * SCRAPE_MS}ms")
            assert "$" not in asked, asked
            got = prometheus.ask(asked)
            assert got, asked
            seen = {labels["instance"] for labels, _ in got}
            assert seen == ({A, B} if instance == ".*" else {instance}), asked
    # A legend names only labels that are there.
    for target in (t for p in board["panels"] for t in p.get("targets", ())):
        asked = target["expr"].replace("$instance", ".*").replace("$__rate_interval", f"{8 * SCRAPE_MS}ms")
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert all(label in labels for labels, _ in prometheus.ask(asked)), (label, asked)
    assert {labels["instance"] for labels, _ in prometheus.ask("qkdgate_info")} == {A, B}


def trouble_without_outage(net, prometheus):
    """A certificate that ends soon, a log and an audit log that cannot be written, forged messages, refusals."""
    prometheus.wait_firing(("QkdgateCertificateExpires", A), ("QkdgateLogFails", A))
    assert not {("QkdgateCertificateExpires", B), ("QkdgateLogFails", B)} & prometheus.firing()
    with net.client("mallory") as mallory, net.client("bob") as bob:
        refusals = Repeat(lambda: mallory.status("sae-alice"), 0.02)
        limit_files(net, B, 4096)
        audited = Repeat(lambda: bob.enc("sae-alice"), 0.1)
        forge(net)
        prometheus.wait_firing(("QkdgateDiskFails", B), ("QkdgateNotReady", B), ("QkdgateForgedMessages", A),
                               ("QkdgateRefusesMany", B))
        assert not {("QkdgateDiskFails", A), ("QkdgateNotReady", A)} & prometheus.firing()
        limit_files(net, B, resource.RLIM_INFINITY)
        refusals.end()
        audited.end()
    (net.folder / "kme-a.own.log").unlink()
    shutil.copy(net.pki / "kme-a.good", net.pki / "kme-a.pem")
    code, _, err = ctl(net, "reload")
    assert code == 0, err
    net.gateways[A].signal(signal.SIGHUP)
    prometheus.wait_silent(("QkdgateCertificateExpires", A), ("QkdgateLogFails", A), ("QkdgateDiskFails", B),
                           ("QkdgateNotReady", B), ("QkdgateForgedMessages", A), ("QkdgateRefusesMany", B))


def no_key(net, prometheus):
    """The links give nothing, and somebody takes what there is."""
    net.outage(True)
    with net.client("alice") as alice:
        prometheus.wait_silent(("QkdgateStreamRunsEmpty", A))
        taking = Repeat(lambda: alice.enc("sae-bob", number=4), 0.05)
        prometheus.wait_firing(("QkdgateStreamRunsEmpty", A))
        taking.end()
    net.outage(False)
    prometheus.wait_silent(("QkdgateStreamRunsEmpty", A))


def nobody_there(net, prometheus):
    """A neighbour that hangs, so that whoever asks for several slaves waits; then links that are gone, and
    links whose ends differ."""
    net.gateways[B].signal(signal.SIGSTOP)
    waiting = [Repeat(lambda a=net.client("alice"): a.enc("sae-bob", additional_slave_SAE_IDs=["sae-erin"]), 0.02)
               for _ in range(2)]
    prometheus.wait_firing(("QkdgateDown", B), ("QkdgateNeighbourDown", A), ("QkdgateSlow", A))
    net.gateways[B].signal(signal.SIGCONT)
    for thread in waiting:
        thread.end()
    # A stream finds out when it wants key, so there must be room in the pools.
    taking = [Repeat(lambda c=net.client(a), b=b: c.enc(f"sae-{b}", number=64), 0.02)
              for a, b in (("alice", "bob"), ("bob", "alice"))]
    for sim in net.sims.values():
        sim.stop()
    prometheus.wait_firing(("QkdgateStreamClosed", A), ("QkdgateStreamClosed", B))
    prometheus.wait_silent(("QkdgateDown", B), ("QkdgateNeighbourDown", A))
    net.sims["sim-b"].arguments += ["--mismatch-every", "700"]
    for sim in net.sims.values():
        sim.start()
    prometheus.wait_silent(("QkdgateStreamClosed", A), ("QkdgateStreamClosed", B), ("QkdgateSlow", A))
    prometheus.wait_firing(("QkdgateKeysDiffer", A))
    for thread in taking:
        thread.end()
