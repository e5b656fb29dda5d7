# SPDX-License-Identifier: Apache-2.0
"""The admin interface: who may use it, what it says, and that it never gives key."""

import os
import re
import socket
import ssl
import stat
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml

from admin import Local, https, local
from links import exchange, issue
from network import PROJECT
from processes import wait_for
from search import holds_in_any_form, pieces
from test_gateway import check, refuses


@pytest.fixture(scope="module")
def net(make_shared):
    return make_shared(admin=True, stock=2000)


def paths(method):
    return [p for p, item in yaml.safe_load((PROJECT / "openapi/admin.yaml").read_text())["paths"].items()
            if method in item]


def filled(path):
    return path.replace("{file}", "main.js").replace("{stream}", "a-to-b").replace("{SAE_ID}", "sae-alice").replace("{other_SAE_ID}", "sae-bob")


# --- what it says --------------------------------------------------------------------------------------

def check_schema(spec, schema, value, where):
    """Whether a JSON value is what the description says: types, members, no others."""
    if "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number",
            type(None): "null"}[type(value)]
    assert kind in types or (kind == "integer" and "number" in types), (where, kind, types)
    if "enum" in schema:
        assert value in schema["enum"], (where, value)
    if kind == "object" and "properties" in schema:
        assert set(schema["required"]) == set(value) == set(schema["properties"]), (where, sorted(value))
        for name, member in value.items():
            check_schema(spec, schema["properties"][name], member, f"{where}.{name}")
    if kind == "array":
        for item in value:
            check_schema(spec, schema["items"], item, f"{where}[]")


def test_every_read_is_as_described(net):
    spec = yaml.safe_load((PROJECT / "openapi/admin.yaml").read_text())
    exchange(net)
    for path in paths("get"):
        content = spec["paths"][path]["get"]["responses"]["200"]["content"]
        answer = local(net).request("GET", filled(path))
        assert answer.status == 200, (path, answer.status, answer.body)
        if "application/json" in content:
            check_schema(spec, content["application/json"]["schema"], answer.json, path)
        else:
            assert answer.headers["Content-Type"].startswith(next(iter(content)))


def test_the_figures_follow_the_keys(net):
    admin = local(net)
    before, saes = admin.stream("a-to-b"), admin.get("/api/v1/saes")["saes"]
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=20)
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    after = admin.stream("a-to-b")
    assert after["issued_chunks"] == before["issued_chunks"] + 20
    assert after["state"] == "running" and after["ksid"] == before["ksid"] and after["profile"] == "bin-b"
    far = Local(net.admin_socket("kme-b")).stream("a-to-b")
    assert far["fetched_chunks"] >= 20 and far["direction"] == "inbound"
    was = {s["id"]: s for s in saes}
    now = {s["id"]: s for s in admin.get("/api/v1/saes")["saes"]}
    assert now["sae-alice"]["issued"] == was["sae-alice"]["issued"] + 20
    assert now["sae-dave"] == was["sae-dave"]
    with net.client("alice") as alice:  # as long as it takes: the rate falls when nobody asks
        wait_for("the rate", lambda: issue(alice) and admin.stream("a-to-b")["out_bps"] > 0, 20, 0.2)
    node = admin.get("/api/v1/node")
    assert node["kme"] == "KME-A" and node["ready"] and node["alive"] and not node["reasons"]


METRIC = re.compile(r'^([a-z_]+)(\{(?:[a-zA-Z_]+="[^"\\\n]*",?)*\})? ([0-9.e+-]+|\+Inf)$')


def test_metrics_are_prometheus_text(net):
    exchange(net)
    text = local(net).request("GET", "/metrics").body.decode()
    types, seen = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in types
            types[name] = kind
        elif not line.startswith("# HELP "):
            found = METRIC.match(line)
            assert found, line
            base = re.sub(r"_(bucket|sum|count)$", "", found[1])
            assert types.get(found[1], types.get(base)), line
            assert (found[1], found[2]) not in seen, line
            seen[found[1], found[2]] = float(found[3])
    names = {n for n, _ in seen}
    assert {"qkdgate_link_skr", "qkdgate_link_eskr", "qkdgate_request_seconds_bucket", "qkdgate_commit_seconds_sum",
            "qkdgate_tls_handshakes_total", "qkdgate_relay_sent_total", "qkdgate_transfer_keys"} <= names
    counts = [v for (n, labels), v in seen.items() if n == "qkdgate_request_seconds_count" and
              'method="POST",route="/api/v1/keys/{slave_SAE_ID}/enc_keys",status="200"' in labels]
    assert counts and counts[0] > 0
    for (name, labels), value in seen.items():
        if name.endswith("_bucket") and 'le="+Inf"' in labels:
            of = re.sub(r',?le="\+Inf"', "", labels)
            assert seen[name.replace("_bucket", "_count"), None if of == "{}" else of] == value


def test_the_page_on_monitoring_knows_every_metric(net):
    """Its table is what a gateway says, type by type, and its alarms ask for nothing else."""
    text = local(net).request("GET", "/metrics").body.decode()
    said = dict(line.split()[2:] for line in text.splitlines() if line.startswith("# TYPE "))
    page = (PROJECT / "docs/monitoring.md").read_text()
    listed = {f"qkdgate_{name}": kind for name, kind in re.findall(r"^\| `(\w+)` \| (gauge|counter|histogram) \|", page, re.M)}
    assert listed == said
    labels = set(re.findall(r'[{,](\w+)="', text))
    rules = [r for g in yaml.safe_load((PROJECT / "docs/monitoring/alerts.yml").read_text())["groups"]
             for r in g["rules"]]
    for rule in rules:
        for name in re.findall(r"qkdgate_\w+", rule["expr"]):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in said or name in said, rule
        assert set(re.findall(r"[{,](\w+)[=!~]", rule["expr"])) <= labels | {"job"}, rule
    table = dict(re.findall(r"^\| `(Qkdgate\w+)` \| .* \| (\d+ min)? ?\|$", page, re.M))
    assert table == {r["alert"]: r["for"].replace("m", " min") if "for" in r else "" for r in rules}


# --- who may ----------------------------------------------------------------------------------------------

def test_the_socket_is_for_its_user_alone(net):
    mode = os.stat(net.admin_socket("kme-a"))
    assert stat.S_ISSOCK(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o600
    if os.geteuid() == 0:
        script = ("import socket,sys,os; os.setgid(65534); os.setuid(65534); s=socket.socket(socket.AF_UNIX)\n"
                  f"s.connect({str(net.admin_socket('kme-a'))!r})")
        done = subprocess.run(["/usr/bin/python3", "-c", script], capture_output=True, text=True, timeout=120)
        assert done.returncode != 0 and "PermissionError" in done.stderr, done.stderr


def test_https_is_for_administrators(net):
    with https(net) as admin:
        assert admin.request("GET", "/api/v1/node").json["kme"] == "KME-A"
    for name in ("alice", "kme-b", "wrongname"):
        with https(net, name) as client:
            answer = client.request("GET", "/api/v1/node")
            assert answer.status == 401 and not answer.body, name
            assert client.request("POST", "/api/v1/reload").status == 401
    for name in (None, "expired", "revoked", "foreign"):
        with pytest.raises((ssl.SSLError, OSError)), https(net, name) as client:
            client.request("GET", "/api/v1/node")


def test_the_page_is_for_administrators_where_there_are_no_passwords(net):
    with https(net) as admin, https(net, "admin-viewer") as viewer, https(net, "alice") as alice:
        for path in ("/", "/dashboard/main.js"):
            assert admin.request("GET", path).status == viewer.request("GET", path).status == 200
            answer = alice.request("GET", path)
            assert answer.status == 401 and not answer.body
        assert viewer.request("GET", "/api/v1/session").json["read_only"]
        for sae in (alice, admin):
            answer = sae.request("POST", "/api/v1/session", {"user": "admin", "password": "x"})
            assert answer.status in (401, 404) and "Set-Cookie" not in answer.headers
        assert admin.request("DELETE", "/api/v1/session").status == 409
    assert local(net).get("/api/v1/session")["by"] == "socket"


def test_an_administrator_is_no_sae_and_no_neighbour(net):
    with net.client("alice", certificate="admin") as client:
        assert client.status("sae-bob").status == 401


def test_who_may_only_look_cannot_act(net):
    with https(net, "admin-viewer") as viewer:
        assert viewer.request("GET", "/api/v1/status").status == 200
        for path in set(paths("post")) - {"/api/v1/session"}:
            assert viewer.request("POST", filled(path)).status == 403, path
    assert local(net).stream("a-to-b")["state"] == "running"


def test_the_scrape_listener_gives_health_and_metrics_without_names(net):
    url = net.admin_url("kme-a", "scrape")
    with urllib.request.urlopen(f"{url}/metrics", timeout=120) as answer:
        text = answer.read().decode()
    assert "qkdgate_sae_requests_total " in text and "sae-alice" not in text
    for path in ("/healthz", "/readyz"):
        with urllib.request.urlopen(url + path, timeout=120) as answer:
            assert answer.status == 200
    for path in ("/api/v1/node", "/api/v1/saes", "/openapi.yaml"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(url + path, timeout=120)
        assert error.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{url}/api/v1/zeroize", data=b"{}", timeout=120)
    assert error.value.code == 404


# --- hostile ------------------------------------------------------------------------------------------------

def test_no_answer_holds_key(net):
    """Every path, before the keys are fetched and after it: none shows any eight bytes of a key."""
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=50)
        texts = [local(net, node).request("GET", filled(p)).body for node in net.gateways for p in paths("get")]
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    texts += [local(net, node).request("GET", filled(p)).body for node in net.gateways for p in paths("get")]
    wanted = pieces(key for _, key in keys)
    assert not any(holds_in_any_form(wanted, text) for text in texts)


@pytest.mark.parametrize("path,body", [
    ("/api/v1/drain", {"grace_s": -1}), ("/api/v1/drain", {"grace_s": "5"}), ("/api/v1/drain", {"grace": 5}),
    ("/api/v1/drain", "[]"), ("/api/v1/reload", {"file": "/etc/passwd"}), ("/api/v1/logs", {"level": "loud"}),
    ("/api/v1/logs", {}), ("/api/v1/logs", {"module": "x" * 40, "level": "info"}),
    ("/api/v1/logs", {"module": "x" * 40, "level": "default"}), ("/api/v1/logs", {"module": {}, "level": "debug"}),
    ("/api/v1/logs", {"module": None, "level": "debug"}), ("/api/v1/zeroize", {}),
    ("/api/v1/zeroize", {"confirm": "KME-B"}), ("/api/v1/zeroize", "{"),
    ("/api/v1/logs", "{" + '"a":1,' * 1000), ("/api/v1/drain", "x" * 10000)])
def test_bad_bodies_change_nothing(net, path, body):
    answer = local(net).post(path, body)
    assert answer.status == 400 and answer.message, answer.body
    node = local(net).get("/api/v1/node")
    assert node["ready"] and not node["draining"]
    exchange(net)


def test_unknown_names_get_404_and_the_near_one(net):
    answer = local(net).request("GET", "/api/v1/streams/a-to-c")
    assert answer.status == 404 and "is a-to-b meant?" in answer.message
    for path in ("/api/v1/streams/zzzzzz/reopen", "/api/v1/saes/sae-nobody/suspend",
                 "/api/v1/pairs/sae-alice/sae-nobody/suspend", "/api/v1/streams/x/delete-keys"):
        assert local(net).post(path).status == 404, path
    assert local(net).request("DELETE", "/api/v1/reload").status == 405
    assert local(net).request("GET", "/api/v1/keys").status == 404


# --- configuration ---------------------------------------------------------------------------------------------

def test_a_listener_without_authentication_does_not_start(make_network):
    net = make_network(start=False, admin=True)
    net.write_config("kme-a", lambda c: c["admin"].pop("admins"))
    status, text = check(net)
    assert status == 1 and "admin.listener" in text and "no authentication" in text
    refuses(net, "no authentication")


@pytest.mark.parametrize("tweak,word", [
    (lambda a: a.update(socket_mode="0666"), "socket_mode"),
    (lambda a: a.update(socket_group="wheel"), "socket_group"),
    (lambda a: a.update(socket="/etc/passwd"), "no socket"),
    (lambda a: a.update(socket="x" * 120), "at most 107"),
    (lambda a: a.pop("listener"), "has no use"),
    (lambda a: a["admins"].append(dict(a["admins"][0])), "already in line"),
    (lambda a: a["scrape"].update(listen=a["listener"]["listen"]), "address of admin.listener"),
])
def test_mistakes_in_the_section_are_named(make_network, tweak, word):
    net = make_network(start=False, admin=True)
    net.write_config("kme-a", lambda c: tweak(c["admin"]))
    status, text = check(net)
    assert status == 1 and word in text, text


def test_sockets_that_are_there(make_network):
    """One that a crash left is replaced, one that somebody listens at is not."""
    net = make_network(admin=True)
    gateway, path = net.gateways["kme-a"], net.admin_socket("kme-a")
    gateway.kill()
    assert path.exists()
    net.restart("kme-a")
    assert local(net).get("/healthz")["alive"]
    gateway.stop()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        refuses(net, "in use")
        assert path.exists()
    net.restart("kme-a")


def test_without_the_section_there_is_no_interface(make_network):
    net = make_network(stock=0)
    assert not list(net.folder.rglob("*.sock")) and check(net)[0] == 0


# --- sources that fall silent -----------------------------------------------------------------------------

def test_a_stream_whose_source_is_gone_is_not_up(make_network):
    """It is open, and finds out when it wants key; so keys are taken meanwhile."""
    net = make_network(admin=True)
    admin = local(net)

    def looks(failing):
        with net.client("alice") as alice:
            alice.enc("sae-bob", number=64)
        said = (admin.stream("a-to-b")["source_failure"] is not None,
                'qkdgate_stream_up{stream="a-to-b",neighbour="KME-B"} 0' in
                admin.request("GET", "/metrics").body.decode())
        return said == (failing, failing)

    assert looks(False)
    net.sims["sim-a"].stop()
    wait_for("its failure", lambda: looks(True), 60, 0.05)
    net.sims["sim-a"].start()
    wait_for("its recovery", lambda: looks(False), 60, 0.05)
