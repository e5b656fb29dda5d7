# SPDX-License-Identifier: Apache-2.0
"""The key manager of another network, played in Python: it serves and calls ETSI GS QKD 020 over
mutual TLS 1.3 with a certificate of its own, notes every request, and answers as a test wants."""

import http.client
import json
import socket
import ssl
import threading
import uuid
from base64 import b64decode, b64encode
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from network import LOOPBACK, Ports
from processes import wait_for

TYPE = "application/json; charset=UTF-8"
PROBLEMS = "https://qkd.etsi.org/gs020-interop-kms/"
EXT_KEYS = "/kmapi/v1/ext_keys"


def new_key(size=32, **members):
    """One entry of `keys`, and its value as SAEs see it."""
    value = b64encode(uuid.uuid4().bytes * (size // 16)).decode()
    return {"key_id": str(uuid.uuid4()), "value": value, **members}


def container(keys, initiator, targets, **members):
    return {"keys": keys, "initiator_sae_id": initiator, "target_sae_ids": list(targets), **members}


def ack_of(ids, status, initiator, targets, **members):
    return {"key_id_container": [{"key_id": i} for i in ids], "ack_status": status,
            "initiator_sae_id": initiator, "target_sae_ids": list(targets), **members}


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    def problem(self):
        """(status, type, names of details); checks the form of the document."""
        document = self.json
        assert self.headers["Content-Type"] == TYPE, self.headers
        assert document["status"] == self.status, document
        assert document["type"].startswith(PROBLEMS), document
        assert isinstance(document["title"], str) and document["title"]
        assert all(isinstance(v, str) and v for v in document["details"].values()), document
        return self.status, document["type"].removeprefix(PROBLEMS), set(document["details"])


@dataclass
class Request:
    path: str
    headers: dict
    body: object

    @property
    def ids(self):
        return [key["key_id"] for key in self.body["keys"]]


def _context(pki, name, server):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # pylint: disable=invalid-name
        peer = self.server.peer
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        request = Request(self.path, dict(self.headers), json.loads(raw))
        status, body = peer.receive(request)
        if status is None:  # the connection is cut instead
            self.close_connection = True
            return
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.open = set()

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def cut(self):
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def handle_error(self, *_):
        pass


class Peer:
    """`name` is that of its certificate (kme-NAME); its SAEs are called `saes`.

    `on_keys`, `on_ack`, `on_void` (request) -> (status, body) say what is answered; a status of None
    cuts the connection. By default keys are accepted (202) and acknowledged as `outcome` says at the
    callback, from a thread of its own; None: no ack comes."""

    def __init__(self, pki, name):
        self.pki, self.name = pki, name
        self.port = Ports().take()
        self.url = f"https://{LOOPBACK}:{self.port}"
        self.callback = f"{self.url}{EXT_KEYS}/ack"
        self.requests = []
        self._changed = threading.Condition()
        self.gateway = None  # (host, port) of its kxi_listener
        self.reset()
        self._server = None
        self.start()

    def reset(self):
        self.outcome = "relayed"
        self.on_keys = self.accept_keys
        self.on_ack = lambda request: (200, None)
        self.on_void = lambda request: (202, None)

    def start(self):
        self._server = _Server((LOOPBACK, self.port), _Handler, bind_and_activate=False)
        self._server.allow_reuse_address = True
        self._server.server_bind()
        self._server.server_activate()
        self._server.peer = self
        self._server.socket = _context(self.pki, self.name, True).wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self):
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut()
            self._server = None

    # --- what comes in --------------------------------------------------------------------

    def receive(self, request):
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        path = request.path.partition("?")[0]
        if path == f"{EXT_KEYS}/ack":
            return self.on_ack(request)
        if path == f"{EXT_KEYS}/void":
            return self.on_void(request)
        return self.on_keys(request)

    def of(self, path, probe=lambda request: True):
        with self._changed:
            return [r for r in self.requests if r.path == path and probe(r)]

    def wait(self, path, probe=lambda request: True, count=1, timeout_s=60):
        """The requests to that path for which probe holds, at least `count`."""
        def enough():
            found = self.of(path, probe)
            return found if len(found) >= count else None
        return wait_for(f"{count} requests to {path} of {self.name}", enough, timeout_s)

    def wait_ack(self, key_id, status=None, count=1, timeout_s=60):
        """Acks that name the key: their containers."""
        def entries(request):
            return [c for c in request.body if key_id in [k["key_id"] for k in c["key_id_container"]]
                    and status in (None, c["ack_status"])]
        found = self.wait(f"{EXT_KEYS}/ack", entries, count, timeout_s)
        return [c for request in found for c in entries(request)]

    def wait_void(self, key_id, count=1, timeout_s=60):
        return self.wait(f"{EXT_KEYS}/void", lambda r: key_id in r.body["key_ids"], count, timeout_s)

    # --- what it does about it --------------------------------------------------------------

    def accept_keys(self, request):
        if self.outcome is not None:
            body = request.body
            ack = ack_of(request.ids, self.outcome, body["initiator_sae_id"], body["target_sae_ids"])
            threading.Thread(target=self.post, args=(f"{EXT_KEYS}/ack", [ack]), daemon=True).start()
        return 202, None

    def answer_outcome(self, request):
        """The synchronous answer."""
        body = request.body
        return 200, [ack_of(request.ids, self.outcome, body["initiator_sae_id"], body["target_sae_ids"])]

    # --- what it asks -------------------------------------------------------------------------

    def post(self, path, body, content_type=TYPE, method="POST", timeout_s=60):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPSConnection(*self.gateway, timeout=timeout_s,
                                                 context=_context(self.pki, self.name, False))
        try:
            connection.request(method, path, data, {"Content-Type": content_type} if data else {})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def give(self, keys, initiator, targets, callback=True, **members):
        """ext_keys, asynchronous by default."""
        if callback:
            members["ack_callback_url"] = self.callback
        return self.post(EXT_KEYS, container(keys, initiator, targets, **members))

    def void(self, ids, initiator, targets, callback=True, **members):
        if callback:
            members["ack_callback_url"] = self.callback
        return self.post(f"{EXT_KEYS}/void", {"key_ids": list(ids), "initiator_sae_id": initiator,
                                              "target_sae_ids": list(targets), **members})


def draft_saes(request):
    """The two SAE IDs of a draft's path."""
    return [unquote(part) for part in request.path.removeprefix(EXT_KEYS + "/").split("/")]


def value_of(key):
    return b64decode(key["value"])
