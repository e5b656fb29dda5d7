# SPDX-License-Identifier: Apache-2.0
"""The dashboard in a real browser, against what the gateway says; who gets to see it, and who does not."""

import http.client
import json
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest
import yaml
from selenium.webdriver.common.keys import Keys

from admin import https, local
from browser import Browser
from client import Client
from links import exchange
from network import PROJECT, binary, build_folder
from processes import wait_for
from test_acts import audit

PASSWORD = "correct horse battery"
HOSTILE = "<img/src=x/onerror=window.xss=1>"  # as the name of an SAE
FILES = sorted(p.name for p in (PROJECT / "src/dashboard").iterdir())
SHOTS = build_folder() / "e2e" / "dashboard"


# --- accounts and sessions -------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def lines():
    """Lines for the file of passwords, each made once: it takes its time."""
    made = {}

    def line(name, read_only=False, password=PASSWORD):
        if (name, read_only, password) not in made:
            done = subprocess.run([binary("qkdgatectl"), "hash-password", name, *["read_only"] * read_only],
                                  input=password, capture_output=True, text=True, timeout=300, check=True)
            made[name, read_only, password] = done.stdout
        return made[name, read_only, password]
    return line


def passwords(net, node="kme-a"):
    return net.folder / f"{node}.passwords"


def write_passwords(net, text, node="kme-a", mode=0o600):
    passwords(net, node).write_text(text)
    passwords(net, node).chmod(mode)


def with_passwords(config, **options):
    config["admin"]["passwords"] = {"file": f"{config['kme']['id'].lower()}.passwords", **options}


def add_hostile(config):
    config["saes"].append({"id": HOSTILE, "certificate": {"cn": "nobody at all"}})


def start_net(maker, lines, options, hostile=False):
    def tweak(name, config):
        with_passwords(config, **options[name])
        if hostile and name == "kme-a":
            add_hostile(config)
    net = maker(admin=True, tweak=tweak, start=False)
    for node in options:
        write_passwords(net, lines("admin") + lines("viewer", True), node)
    net.start()
    net.wait_stock("alice", "bob", 200)
    net.wait_stock("bob", "alice", 200)
    return net


@pytest.fixture(scope="module")
def net(make_shared, lines):
    """At KME-B every session ends after two seconds."""
    return start_net(make_shared, lines, {"kme-a": {"attempts": 100, "attempt_s": 1, "idle_s": 86400, "session_s": 86400},
                                          "kme-b": {"session_s": 2}}, hostile=True)


class Session:
    """Who signs in with a password, without a browser. `source`: the address that it comes from."""

    def __init__(self, net, user=None, password=PASSWORD, node="kme-a", source=None):
        def connect(address, timeout=None, source_address=None):
            return socket.create_connection(address, timeout, (source, 0) if source else source_address)
        self._client = Client(net.admin_url(node), net.pki / "ca.pem", timeout_s=60, connector=connect)
        self.cookie = self.token = None
        self.answer = self.sign_in(user, password) if user else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def request(self, method, path, body=None, headers=None, token=True):
        headers = dict(headers or {})
        if self.cookie and "Cookie" not in headers:
            headers["Cookie"] = self.cookie
        if self.token and token and method != "GET":
            headers["X-Qkdgate-Token"] = self.token
        return self._client.request(method, path, body, headers)

    def sign_in(self, user, password=PASSWORD, headers=None):
        answer = self.request("POST", "/api/v1/session", {"user": user, "password": password}, headers)
        if answer.status == 200:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
            self.token = answer.json["token"]
        return answer

    def status(self, path="/api/v1/session"):
        return self.request("GET", path).status


def paths(method):
    spec = yaml.safe_load((PROJECT / "openapi/admin.yaml").read_text())["paths"]
    return [re.sub(r"\{\w+\}", "a-to-b", p) for p, item in spec.items() if method in item]


def test_nobody_sees_anything_without_session_or_certificate(net):
    open_ones = {"/", "/dashboard/a-to-b"}
    with Session(net) as nobody:
        for method in ("get", "post", "delete", "put", "patch"):
            for path in set(paths(method)) - (open_ones if method == "get" else {"/api/v1/session"} if method == "post" else set()):
                answer = nobody.request(method.upper(), path)
                assert answer.status == 401 and not answer.body, (method, path, answer.status)
        assert nobody.status("/api/v1/nothing") == nobody.status("/api/v1/") == 401
        assert nobody.status("/") == 200 and nobody.status("/dashboard/main.js") == 200
    with https(net) as admin, https(net, "alice") as alice:
        assert admin.request("GET", "/api/v1/session").json == {
            "user": "admin", "by": "certificate", "read_only": False, "token": None, "idle_in_s": None, "ends_in_s": None}
        assert alice.request("GET", "/api/v1/status").status == 401
    for name in ("expired", "revoked", "foreign"):
        with pytest.raises((ssl.SSLError, OSError)), https(net, name) as client:
            client.request("GET", "/")


def test_a_session_reads_and_acts_until_it_is_signed_out(net):
    with Session(net, "admin") as admin:
        cookie = admin.answer.headers["Set-Cookie"]
        assert re.fullmatch(r"__Host-qkdgate-[0-9a-f]{8}=[\w-]{43}; Path=/; Secure; HttpOnly; SameSite=Strict", cookie)
        for path in set(paths("get")) - {"/", "/dashboard/a-to-b"}:
            assert admin.status(path) == 200, path
        assert admin.request("POST", "/api/v1/saes/sae-dave/suspend").status == 200
        assert admin.request("POST", "/api/v1/saes/sae-dave/resume").status == 200
        assert admin.request("DELETE", "/api/v1/session", token=False).status == 403
        gone = admin.request("DELETE", "/api/v1/session")
        assert gone.status == 200 and "Max-Age=0" in gone.headers["Set-Cookie"]
        assert admin.status() == admin.request("POST", "/api/v1/saes/sae-dave/suspend").status == 401
    local(net).get("/api/v1/audit")  # is written up to here
    said = [(x["caller"], x["reason"]) for x in audit(net) if x["act"] == "admin"]
    for reason in ("sign in", "suspend", "resume", "sign out"):
        assert ("password:admin", reason) in said
    assert PASSWORD not in (net.folder / "kme-a" / "audit.log").read_text() + net.gateways["kme-a"].log(whole=True)


def test_who_may_only_look_looks(net):
    with Session(net, "viewer") as viewer:
        assert viewer.answer.json["read_only"] and viewer.status("/api/v1/status") == 200
        for path in set(paths("post")) - {"/api/v1/session"}:
            assert viewer.request("POST", path).status == 403, path


# --- hostile -----------------------------------------------------------------------------------------------

def test_wrong_passwords_and_bodies_get_no_session(net):
    with Session(net) as nobody:
        for user, password in (("admin", PASSWORD + "x"), ("admin", ""), ("nobody", PASSWORD), ("ADMIN", PASSWORD)):
            answer = nobody.sign_in(user, password)
            assert answer.status == 401 and answer.message == "user or password is wrong"
            assert "Set-Cookie" not in answer.headers
        for body in ("", "{", "[]", {}, {"user": "admin"}, {"user": "admin", "password": 1}, {"user": "", "password": "x"},
                     {"user": "admin", "password": PASSWORD, "read_only": False}, {"user": "a" * 65, "password": "x"},
                     {"user": "admin", "password": "x" * 1025}, "x" * 5000):
            answer = nobody.request("POST", "/api/v1/session", body)
            assert answer.status == 400 and answer.message, (body, answer.status)
    assert net.gateways["kme-a"].lines("event=sign_in_failed", "user=nobody", "from=127.0.0.1")


def test_a_session_is_never_one_that_the_browser_brought(net):
    with Session(net, "admin") as admin, Session(net) as other:
        name, _, value = admin.cookie.partition("=")
        other.cookie = f"{name}={'A' * 43}"  # planted
        assert other.status() == 401
        assert other.sign_in("admin").status == 200 and other.cookie != f"{name}={'A' * 43}"
        with Session(net) as victim:
            victim.cookie = f"{name}={'A' * 43}"
            assert victim.status() == 401
        old = other.cookie
        assert other.sign_in("viewer").status == 200  # the session from before ends with it
        with Session(net) as thief:
            thief.cookie = old
            assert thief.status() == 401
            for cookie in (f"{name}={value[:-1]}", f"{name}={value}x", f"{name[:-1]}={value}", f"x{name}={value}", name, f"{name}=",
                           f"{name}={'é' * 21}", "; ".join([f"{name}={'B' * 43}", admin.cookie]), ";" * 100):
                answer = thief.request("GET", "/api/v1/session", headers={"Cookie": cookie.encode()})
                assert answer.status == 401, cookie
            assert thief.request("GET", "/api/v1/session", headers={"Cookie": f"a=b;  {admin.cookie}; c=d"}).status == 200
        assert admin.status() == 200


def test_a_cookie_of_another_gateway_is_worth_nothing(net):
    with Session(net, "admin") as here, Session(net, "admin", node="kme-b") as there:
        names = {s.cookie.partition("=")[0] for s in (here, there)}
        assert len(names) == 2, "one signs the other out of the browser"
        there.cookie = f"{there.cookie.partition('=')[0]}={here.cookie.partition('=')[2]}"
        assert there.status() == 401
        assert here.request("GET", "/api/v1/session", headers={"Cookie": there.cookie}).status == 401


def test_huge_cookies_harm_nobody(net):
    for size in (3000, 7000, 9000, 20000, 100000):
        with Session(net) as nobody:
            nobody.cookie = "__Host-qkdgate-00000000=" + "a" * size
            try:
                assert nobody.status("/api/v1/status") in (401, 431)
                assert nobody.status("/") in (200, 401, 431)
            except (http.client.HTTPException, OSError):
                pass  # the connection was ended
    with Session(net, "admin") as admin:
        admin.cookie += "; x=" + "y" * 2500
        assert admin.status() == 200
    exchange(net)


def test_other_pages_make_a_browser_do_nothing(net):
    before = local(net).stream("a-to-b")["ksid"]
    host = net.admin_url("kme-a").removeprefix("https://")
    foreign = [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": f"http://{host}"},
               {"Origin": f"https://{host}0"}, {"Origin": f"https://{host}.evil.example"}, {"Sec-Fetch-Site": "cross-site"},
               {"Sec-Fetch-Site": "same-site", "Origin": f"https://{host}"}, {"Sec-Fetch-Site": "none"}]
    path = "/api/v1/streams/a-to-b/reopen"
    with Session(net, "admin") as session, https(net) as admin:
        for headers in foreign:
            assert session.request("POST", path, headers=headers).status == 403, headers
            assert admin.request("POST", path, headers=headers).status == 403, headers
            assert session.sign_in("admin", headers=headers).status == 403, headers
            assert session.request("DELETE", "/api/v1/session", headers=headers).status == 403, headers
        for token in (None, "", "A" * 43, session.token[:-1], session.token + "x"):
            headers = {} if token is None else {"X-Qkdgate-Token": token}
            assert session.request("POST", path, headers=headers, token=False).status == 403, token
        with Session(net, "viewer") as viewer:
            viewer.token = session.token
            assert viewer.request("POST", path).status == 403
        assert local(net).stream("a-to-b")["ksid"] == before
        ours = {"Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"}
        assert session.request("POST", "/api/v1/saes/sae-dave/resume", headers=ours).status == 200
        assert admin.request("POST", "/api/v1/saes/sae-dave/resume", headers=ours).status == 200
        answer = session.request("GET", "/api/v1/status", headers={"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_files_are_those_of_the_page_and_no_others(net):
    with Session(net) as nobody:
        for name in FILES:
            path = "/" if name == "index.html" else f"/dashboard/{name}"
            answer = nobody.request("GET", path)
            assert answer.status == 200 and answer.body == (PROJECT / "src/dashboard" / name).read_bytes()
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "*" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            again = nobody.request("GET", path, headers={"If-None-Match": f'"x", W/{answer.headers["ETag"]}'})
            assert again.status == 304 and not again.body and again.headers["ETag"] == answer.headers["ETag"]
            assert nobody.request("GET", path, headers={"If-None-Match": '"x"'}).status == 200
        for path in ("..%2findex.html", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..", ".", "", "main.js%00.css", "main.js/", "MAIN.JS",
                     "%2fetc%2fpasswd", "index.html%0d%0aX: y", "....//index.html", "../kme-a.yaml"):
            assert nobody.status(f"/dashboard/{path.replace(' ', '%20')}") in (400, 401, 404), path
    with https(net) as admin:
        assert admin.request("GET", "/dashboard/nothing.js").status == 404
    for name in FILES:  # nothing from elsewhere, nothing inline
        text = (PROJECT / "src/dashboard" / name).read_text()
        assert not set(re.findall(r"https?://[^\s\"'`<)]+", text)) - {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"\bon[a-z]+=|style=|<script(?![^>]*src=)|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text), name


def sign_in_often(net, source, user, n, statuses):
    """Guesses so often as it is compared or slowed down; where others stand in the row, or all together try
    too often, it comes again."""
    def turned_away(answer):
        return answer.status == 503 or (answer.status == 429 and answer.json["wait_s"] <= 60)

    with Session(net, source=source) as guesser:
        for i in range(n):
            while turned_away(answer := guesser.sign_in(user, f"guess {i}")):
                time.sleep(0.1)
            statuses.append(answer.status)


def test_guessing_is_slowed_down_and_slows_down_nobody_else(make_network, lines):
    net = start_net(make_network, lines, {"kme-a": {"attempts": 3, "attempt_s": 3600}, "kme-b": {"idle_s": 2}})
    with Session(net, source="127.0.0.9") as guesser:
        answers = [guesser.sign_in("admin", f"guess {i}") for i in range(5)]
        assert [a.status for a in answers] == [401] * 3 + [429] * 2
        assert int(answers[-1].headers["Retry-After"]) == answers[-1].json["wait_s"] > 60
        assert guesser.sign_in("admin").status == 429  # the right one, now
        assert guesser.sign_in("viewer").status == 429  # the address
    with Session(net, "admin", source="127.0.0.10") as other:
        assert other.answer.status == 429  # the account, from everywhere
        assert other.sign_in("viewer").status == 200
        statuses, crowd = [], []
        for i in range(4):
            crowd.append(threading.Thread(target=sign_in_often, args=(net, f"127.0.1.{i + 1}", f"user{i}", 4, statuses)))
        for thread in crowd:
            thread.start()
        while any(thread.is_alive() for thread in crowd):
            exchange(net)
            assert other.status("/api/v1/node") == 200
        assert sorted(statuses) == [401] * 3 * 4 + [429] * 4
    with https(net) as admin:  # a certificate has nothing to wait for
        assert admin.request("GET", "/api/v1/node").status == 200
    with Session(net, "admin", node="kme-b") as idle:  # meanwhile elsewhere: nobody is at the page, though it asks
        assert idle.answer.json["idle_in_s"] == 2
        ended = wait_for("the end of an idle session", lambda: idle.request(
            "GET", "/api/v1/status", headers={"X-Qkdgate-Idle": "1"}).status == 401, 60, 0.2)
        assert ended and idle.status() == 401


def test_a_reload_ends_the_sessions_of_changed_accounts(net, lines):
    with Session(net, "admin") as admin, Session(net, "viewer") as viewer:
        for text, mode in (("admin:secret\n", 0o600), ("", 0o600), (lines("admin"), 0o644)):
            write_passwords(net, text, mode=mode)
            answer = local(net).post("/api/v1/reload")
            assert answer.status in (400, 409, 503) and "passwords" in answer.message, answer.body
            assert admin.status() == viewer.status() == 200
        passwords(net).unlink()
        assert local(net).post("/api/v1/reload").status != 200
        write_passwords(net, lines("admin") + lines("viewer", True, "another password") + lines("carol"))
        assert local(net).post("/api/v1/reload").status == 200
        assert admin.status() == 200 and viewer.status() == 401
        assert viewer.sign_in("viewer").status == 401
        assert viewer.sign_in("viewer", "another password").status == 200
        with Session(net, "carol") as carol:
            assert carol.answer.status == 200
        write_passwords(net, lines("admin") + lines("viewer", True))
        assert local(net).post("/api/v1/reload").status == 200
        assert admin.status() == 200 and viewer.status() == 401


@pytest.mark.parametrize("tweak,word", [
    (lambda a: a["passwords"].update(file="missing"), "cannot be read"),
    (lambda a: a.pop("listener") and a.pop("admins"), "has no use without listener"),
    (lambda a: a["passwords"].update(idle_s=0), "idle_s"),
    (lambda a: a["passwords"].update(idle=5), "idle"),
])
def test_mistakes_with_passwords_are_named(make_network, lines, tweak, word):
    net = make_network(start=False, admin=True)
    write_passwords(net, lines("admin"))
    net.write_config("kme-a", lambda c: (with_passwords(c), tweak(c["admin"])))
    done = subprocess.run([binary("qkdgate"), "check-config", net.config_file("kme-a")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and word in done.stderr + done.stdout, done.stderr


# --- history and alarms ---------------------------------------------------------------------------------------

def taken_bits(history, member):
    steps = [history["step_s"]] * (len(history[member]) - 1) + [history["last_s"]]
    return sum(v * s for v, s in zip(history[member], steps))


def test_history_accounts_for_every_key(net):
    admin = local(net)
    for span in ("hour", "day"):
        path = f"/api/v1/streams/a-to-b/history?span={span}"
        wait_for("a quiet moment", lambda: admin.stream("a-to-b")["full"], 60, 0.2)
        before = taken_bits(admin.get(path), "out_bps")
        issued = admin.stream("a-to-b")["issued_chunks"]
        with net.client("alice") as alice:
            for _ in range(4):
                assert alice.enc("sae-bob", number=50).status == 200
        bits = (admin.stream("a-to-b")["issued_chunks"] - issued) * admin.stream("a-to-b")["chunk_bytes"] * 8
        assert bits > 0
        wait_for("the history", lambda: abs(taken_bits(admin.get(path), "out_bps") - before - bits) < bits / 100, 60, 0.3)
    assert admin.request("GET", "/api/v1/streams/a-to-b/history?span=year").status == 400
    assert admin.request("GET", "/api/v1/streams/a-to-b/history?span=day&x=1").status == 400
    assert admin.request("GET", "/api/v1/streams/nothing/history").status == 404
    wait_for("a step that is over", lambda: len(admin.get("/api/v1/streams/a-to-b/history")["in_bps"]) > 1, 60, 0.3)
    kept = admin.get("/api/v1/streams/a-to-b/history")
    assert admin.post("/api/v1/reload").status == 200
    after = admin.get("/api/v1/streams/a-to-b/history")
    assert len(after["in_bps"]) >= len(kept["in_bps"]) and after["in_bps"][0] == kept["in_bps"][0] > 0


# --- in the browser ---------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def browser(net, e2e_folder):
    chromium = Browser(e2e_folder / "chromium", net.pki / "kme-a.pem", net.pki / "kme-b.pem")
    yield chromium
    said = [line for line in chromium.console() if "Failed to load resource" not in line]
    chromium.close()
    assert not said, said  # no violation of the policy, no error of a script


def visit(browser, net, node="kme-a"):
    browser.driver.get(net.admin_url(node) + "/")


def sign_in(browser, net, user="admin", password=PASSWORD, node="kme-a"):
    """At the page, anew."""
    browser.driver.delete_all_cookies()
    visit(browser, net, node)
    browser.wait("the form", lambda: browser.shown("#sign-in"))
    browser.type("#sign-in-user", user)
    browser.type("#sign-in-password", password)
    browser.click("#sign-in button")


@pytest.fixture
def page(browser, net):
    """Signed in, maybe by the test before, and drawn."""
    here = browser.driver.current_url.startswith(net.admin_url("kme-a") + "/")
    if not (here and browser.shown("#page") and browser.text("#user") == "admin" and not browser.shown("#dialog")):
        sign_in(browser, net)
    browser.wait("the page", lambda: browser.shown("#picture svg") and browser.shown("#stream-table tbody tr"))
    return browser


def cell(browser, table, key, column):
    return browser.run("const r = [...document.querySelectorAll(arguments[0] + ' tbody tr')].find((x) => x.dataset.key === arguments[1]);"
                       "return r && r.querySelector(`[data-column=${arguments[2]}]`)?.textContent", f"#{table}", key, column)


def number(text):
    return int(text.replace(",", ""))


def size(n):
    """As the page says it."""
    units = ["B", "KiB", "MiB", "GiB"]
    while n >= 1024 and len(units) > 1:
        n, units = n / 1024, units[1:]
    return f"{n:.{0 if units[0] == 'B' or n >= 100 else 1 if n >= 10 else 2}f} {units[0]}"


def test_the_page_shows_what_the_gateway_says_while_keys_flow(page, net):
    done = threading.Event()

    def flow():
        while not done.is_set():
            exchange(net)
            time.sleep(0.02)

    flowing = threading.Thread(target=flow)
    flowing.start()
    try:
        for _ in range(3):  # between two looks of ours
            first = local(net).stream("a-to-b")["issued_chunks"]
            shown = page.wait("the page to come after", lambda: (n := number(cell(page, "stream-table", "a-to-b", "issued_chunks")))
                              >= first and n)
            assert first <= shown <= local(net).stream("a-to-b")["issued_chunks"]
        page.wait("key on its way out", lambda: page.text("article[data-stream=a-to-b] [data-value=out_bps]") != "0 bit/s")
        page.wait("a chart", lambda: page.run("return !!document.querySelector('article[data-stream=a-to-b] path.line.out').getAttribute('d')"))
        page.picture(SHOTS / "flowing.png")
    finally:
        done.set()
        flowing.join()

    def same():
        """At a quiet moment every figure is the gateway's."""
        status, saes = local(net).get("/api/v1/status"), local(net).get("/api/v1/saes")["saes"]
        for s in status["streams"]:
            for column in ("taken_chunks", "issued_chunks", "fetched_chunks", "bad_segments"):
                if number(cell(page, "stream-table", s["name"], column)) != s[column]:
                    return False
            stock = f"{size(s['held_chunks'] * s['chunk_bytes'])} held" if s["direction"] == "inbound" else size(s["ready_bytes"])
            if (cell(page, "stream-table", s["name"], "ready_bytes"), cell(page, "stream-table", s["name"], "ksid")) != (stock, s["ksid"][:13]):
                return False
        return all(number(cell(page, "sae-table", s["id"], column)) == s[column] for s in saes
                   for column in ("requests", "issued", "fetched", "refused"))

    page.wait("the same figures", same)
    page.click("#span-day")
    page.wait("the day", lambda: page.text("article[data-stream=a-to-b] .time-axis span") == "2 h ago")  # of 4 minutes each
    assert page.run("return document.querySelector('#span-day').ariaPressed + document.querySelector('#span-hour').ariaPressed") == "truefalse"
    page.click("#span-hour")
    assert page.text("#kme") == "KME-A" and page.text("#state").endswith("ready")
    assert page.texts("#picture .node .id") == ["KME-A", "KME-B"]
    assert len(page.texts("#picture .way")) == 2 and len(page.texts(".chart")) == 2


def test_names_with_markup_stay_names(page, net):
    assert cell(page, "sae-table", HOSTILE, "id") == HOSTILE
    page.run("document.querySelector(`[data-key='${arguments[0]}'] button`).click()", HOSTILE)
    page.wait("the question", lambda: page.shown("#dialog"))
    assert HOSTILE in page.text("#dialog-h")
    page.click("#dialog-yes")
    page.wait("the alarm", lambda: any(HOSTILE in text for text in page.texts("#alarm-list .finding")))
    suspended = {s["id"] for s in local(net).get("/api/v1/saes")["saes"] if s["suspended"]}
    assert suspended == {HOSTILE}
    assert page.run("return window.xss === undefined && document.querySelectorAll('main img, main script').length") == 0
    assert local(net).post(f"/api/v1/saes/{HOSTILE.replace('/', '%2F').replace('<', '%3C').replace('>', '%3E')}/resume").status == 200
    page.wait("no alarm", lambda: not any(HOSTILE in text for text in page.texts("#alarm-list .finding")))


def test_the_policy_lets_in_nothing_else(page):
    """What a page would do that somebody could put something into."""
    attempt = "try { %s; return 'done' } catch (e) { return e.name }"
    assert page.run(attempt % "document.body.innerHTML = '<b>x</b>'") == "TypeError"
    assert page.run(attempt % "const s = document.createElement('script'); s.textContent = 'window.xss = 1'; document.body.append(s)") == "TypeError"
    assert page.driver.execute_async_script("const done = arguments[0]; fetch('https://127.0.0.1:1/').then(() => done('sent'), (e) => done(e.name))") == "TypeError"
    assert page.run("return window.xss") is None
    refused = [line for line in page.console() if "Content Security Policy" in line or "TrustedHTML" in line or "TrustedScript" in line]
    assert refused, page.console()
    page.forget()  # that was on purpose


def test_wrong_passwords_and_ended_sessions_lead_to_the_form(browser, net):
    sign_in(browser, net, password="wrong password")
    browser.wait("a refusal", lambda: "wrong" in (browser.text("#sign-in-error") or ""))
    assert not browser.shown("#page") and browser.run("return document.querySelector('#sign-in-password').value") == ""
    browser.picture(SHOTS / "sign-in.png")
    browser.type("#sign-in-password", PASSWORD)
    browser.press(Keys.ENTER)
    browser.wait("the page", lambda: browser.shown("#picture svg"))
    assert browser.run("return document.cookie") == ""  # no script sees it
    browser.click("#sign-out")
    browser.wait("the form", lambda: browser.shown("#sign-in"))
    visit(browser, net)
    browser.wait("the form again", lambda: browser.shown("#sign-in"))


def test_a_session_that_ends_leads_to_the_form(browser, net):
    sign_in(browser, net, node="kme-b")
    browser.wait("the end", lambda: "has ended" in (browser.text("#sign-in-error") or ""))
    assert not browser.shown("#page")


def test_acts_ask_first(page, net):
    admin = local(net)
    before = admin.stream("a-to-b")["ksid"]
    page.click("article[data-stream=a-to-b] header button")
    page.wait("the question", lambda: page.shown("#dialog"))
    page.click("#dialog-no")
    page.wait("no question", lambda: not page.run("return document.querySelector('#dialog').open"))
    assert admin.stream("a-to-b")["ksid"] == before
    page.click("article[data-stream=a-to-b] header button")
    page.click("#dialog-yes")
    page.wait("another epoch", lambda: admin.stream("a-to-b")["ksid"] not in (before, None))
    page.wait("what came of it", lambda: "reopen a-to-b: done" in (page.text("#told") or ""))
    page.click("#act-reload")
    page.click("#dialog-yes")
    page.wait("what came of it", lambda: "reload: done" in (page.text("#told") or ""))
    page.click("#act-zeroize")
    assert page.run("return document.querySelector('#dialog-yes').disabled")
    for typed in ("KME-B", "kme-a", "KME-A "):
        page.type("#dialog-input", typed)
        assert page.run("return document.querySelector('#dialog-yes').disabled"), typed
    page.type("#dialog-input", "KME-A")
    assert not page.run("return document.querySelector('#dialog-yes').disabled")
    page.picture(SHOTS / "zeroize.png")
    page.press(Keys.ESCAPE)
    page.wait("no question", lambda: not page.run("return document.querySelector('#dialog').open"))
    assert admin.get("/api/v1/node")["alive"]
    sign_in(page, net, "viewer")
    page.wait("the page", lambda: page.shown("#picture svg") and page.shown("#sae-table tbody tr"))
    page.wait("who it is", lambda: "may look only" in (page.text("#user") or ""))
    assert not page.shown("#act-row") and not page.shown("#sae-table button")
    assert not page.shown(".chart button")
    net.wait_stock("alice", "bob", 200)


def test_the_page_zeroizes_with_the_name_typed(browser, make_network, lines):
    net = make_network(admin=True, tweak=lambda _, config: with_passwords(config), start=False)
    gateway = net.gateways["kme-a"]
    write_passwords(net, lines("admin"))
    gateway.start()
    gateway.wait_ready()
    sign_in(browser, net)
    browser.wait("the page", lambda: browser.shown("#picture svg"))
    browser.click("#act-zeroize")
    browser.type("#dialog-input", "KME-A")
    browser.click("#dialog-yes")
    wait_for("the end of the gateway", lambda: gateway.exit_status == 3, 60, 0.1)
    browser.wait("that it is said", lambda: "No answer" in (browser.text("#offline") or ""))
    assert gateway.lines("event=zeroized", "who=password:admin") and not (net.folder / "kme-a.master").exists()


def background(browser):
    return browser.run("return getComputedStyle(document.body).backgroundColor")


def test_light_and_dark(page, net):
    colours = {}
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        colours[scheme] = background(page)
        page.picture(SHOTS / f"{scheme}.png", whole=True)
    assert colours["light"] != colours["dark"]
    page.prefer("light")
    for _ in range(2):
        page.click("#theme")
    assert page.text("#theme") == "Dark" and background(page) == colours["dark"]
    visit(page, net)  # it is remembered
    page.wait("the page", lambda: page.shown("#picture svg"))
    assert background(page) == colours["dark"]
    page.click("#theme")
    assert background(page) == colours["light"]


def test_a_telephone_shows_it_all(page):
    try:
        for width in (390, 320):
            page.resize(width, 800, phone=True)
            page.wait("the narrow page", lambda: page.run("return innerWidth") <= width)
            page.wait("the page to fit", lambda: page.run("return document.documentElement.scrollWidth") <= width)
            wide = page.run("return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() &&"
                            " !e.closest('svg, .skip') && e.getBoundingClientRect().right > arguments[0] + 1).map((e) => e.outerHTML.slice(0, 80))", width)
            assert not wide, wide
            page.picture(SHOTS / f"phone-{width}.png", whole=True)
    finally:
        page.resize(1440, 1000)


def test_the_keyboard_reaches_everything(page):
    wanted = set(page.run(
        "let n = 0; return [...document.querySelectorAll('a, button, input, [tabindex=\"0\"]')].filter((e) => e.checkVisibility() &&"
        " !e.disabled && !e.closest('dialog')).map((e) => (e.dataset.stop = String(++n)))"))
    assert len(wanted) > 15
    page.run("document.activeElement.blur(); scrollTo(0, 0)")
    reached = []
    for _ in range(2 * len(wanted)):
        page.press(Keys.TAB)
        at = page.run("return document.activeElement.dataset.stop || null")
        if at and at not in reached:
            reached.append(at)
        # nothing that has the focus is hidden, and it can be seen that it has it
        assert page.run("const e = document.activeElement, s = getComputedStyle(e); return e === document.body ||"
                        " (e.checkVisibility() && (s.outlineStyle !== 'none' || e.closest('svg') !== null))")
    # What was drawn anew meanwhile lost its mark, not its place: nodes of the picture have names.
    lost = page.run("return arguments[0].filter((n) => document.querySelector(`[data-stop='${n}']`))", sorted(wanted - set(reached)))
    assert not lost, page.run("return arguments[0].map((n) => document.querySelector(`[data-stop='${n}']`).outerHTML)", lost)
    page.run("document.querySelector('#act-drain').focus()")
    page.press(Keys.ENTER)
    page.wait("the question", lambda: page.run("return document.querySelector('#dialog').open"))
    page.press(Keys.ESCAPE)
    page.wait("no question", lambda: not page.run("return document.querySelector('#dialog').open"))
    assert page.run("return document.activeElement.id") == "act-drain"
    page.run("document.querySelector('article[data-stream=a-to-b] .plots').focus()")
    page.wait("a chart", lambda: page.run("return !!document.querySelector('article[data-stream=a-to-b]').dataset.points"))
    page.press(Keys.ARROW_LEFT)
    page.wait("what the chart says there", lambda: " in " in (page.text("article[data-stream=a-to-b] .readout") or ""))


def test_everything_has_a_name(page):
    page.devtools("Accessibility.enable")
    nodes = page.devtools("Accessibility.getFullAXTree")["nodes"]
    page.devtools("Accessibility.disable")
    roles = {"button", "link", "textbox", "image", "img", "table", "dialog", "region"}
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes
             if not n.get("ignored") and n.get("role", {}).get("value") in roles]
    assert {"button", "link", "table"} <= {role for role, _ in found}
    assert all(name.strip() for _, name in found), [x for x in found if not x[1].strip()]


def test_an_outage_is_told(page, net):
    """The last of this file: a gateway is drained from the page."""
    sims = [s for s in net.sims.values()]
    for sim in sims:
        sim.stop()
    net.gateways["kme-b"].stop()
    page.wait("an alarm", lambda: any("KME-B" in text or "a-to-b" in text for text in page.texts("#alarm-list .finding")))
    page.wait("the picture", lambda: page.run("return document.querySelectorAll('#picture .bad, #picture .warn').length > 0"))

    def without_figures(texts):
        return {re.sub(r"\d+", "", text) for text in texts}

    page.wait("the gateway's alarms", lambda: without_figures(page.texts("#alarm-list .finding")) ==
              without_figures(a["finding"] for a in local(net).get("/api/v1/alarms")["alarms"]))
    page.picture(SHOTS / "outage.png", whole=True)
    page.click("#act-drain")
    page.type("#dialog-input", "1")
    page.click("#dialog-yes")
    wait_for("the end of the gateway", lambda: net.gateways["kme-a"].exit_status is not None, 60, 0.2)
    page.wait("that it is said", lambda: "No answer" in (page.text("#offline") or ""))
    assert net.gateways["kme-a"].exit_status == 0
