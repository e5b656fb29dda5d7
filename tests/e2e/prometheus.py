# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus on loopback, and the project's rules with all their times divided: what takes ten minutes
with a scrape every 15 s takes ten seconds with one every quarter of a second."""

import json
import re
import subprocess
import urllib.parse
import urllib.request

import yaml

from network import LOOPBACK, PROJECT, Ports
from processes import wait_for

RULES = PROJECT / "docs/monitoring/alerts.yml"
TIMES_FASTER = 60
SCRAPE_MS = 15000 // TIMES_FASTER
UNITS_MS = {"s": 1000, "m": 60000, "h": 3600000}


def faster(text):
    """5m becomes 5000ms."""
    number, unit = re.fullmatch(r"(\d+)([smh])", text).groups()
    return f"{int(number) * UNITS_MS[unit] // TIMES_FASTER}ms"


def faster_rules():
    rules = yaml.safe_load(RULES.read_text())
    for rule in (r for g in rules["groups"] for r in g["rules"]):
        if "for" in rule:
            rule["for"] = faster(rule["for"])
        rule["expr"] = re.sub(r"\[(\w+)\]", lambda m: f"[{faster(m[1])}]", rule["expr"])
    return rules


def alarms():
    return [r["alert"] for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]


class Prometheus:
    """Scrapes the targets {name: (host, port)}; the name is their `instance`."""

    def __init__(self, folder, targets):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "alerts.yml").write_text(yaml.safe_dump(faster_rules()))
        config = {
            "global": {"scrape_interval": f"{SCRAPE_MS}ms", "scrape_timeout": f"{SCRAPE_MS}ms",
                       "evaluation_interval": f"{SCRAPE_MS}ms"},
            "rule_files": ["alerts.yml"],
            "scrape_configs": [{"job_name": "qkdgate", "static_configs": [
                {"targets": [f"{host}:{port}"], "labels": {"instance": name}}
                for name, (host, port) in targets.items()]}],
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = Ports().take()
        self._log = open(folder / "prometheus.log", "wb")
        self._process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={LOOPBACK}:{self.port}", "--log.level=warn"],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        wait_for("Prometheus", self._is_ready, 60)

    def _get(self, path, timeout_s=30):
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}{path}", timeout=timeout_s) as answer:
            return answer.read()

    def _is_ready(self):
        assert self._process.poll() is None, (self.folder / "prometheus.log").read_text()
        try:
            return self._get("/-/ready")
        except OSError:
            return None

    def api(self, path, **query):
        answer = json.loads(self._get(f"/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def ask(self, expression):
        """[(labels, value)] at this moment."""
        return [(r["metric"], float(r["value"][1])) for r in self.api("query", query=expression)["result"]]

    def firing(self):
        """{(alarm, instance)}."""
        return {(a["labels"]["alertname"], a["labels"]["instance"]) for a in self.api("alerts")["alerts"]
                if a["state"] == "firing"}

    def wait_firing(self, *wanted, timeout_s=40):
        wait_for(f"{wanted} to fire", lambda: set(wanted) <= self.firing(), timeout_s, 0.2)

    def wait_silent(self, *wanted, timeout_s=40):
        wait_for(f"{wanted} to end", lambda: not set(wanted) & self.firing(), timeout_s, 0.2)

    def end(self):
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
