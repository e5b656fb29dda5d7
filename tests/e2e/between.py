# SPDX-License-Identifier: Apache-2.0
"""What stands between two gateways in tests: a counter of TLS records, a middleman who holds both
gateways' certificates and so reads, holds back and changes their messages, and a recorder of every
byte inside TLS."""

import http.client
import http.server
import re
import select
import socket
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass

from tcp_way import TcpWay

DROP = object()  # as answer of a hook: hang up instead
APPLICATION_DATA = 0x17


class RecordCounter(TcpWay):
    """Counts TLS application-data records in both directions."""

    def __init__(self, target):
        self.records = 0
        self._counting = threading.Lock()
        self._pending = {}  # what is left of the last record from each socket
        super().__init__(target)

    def passing(self, source, data):
        with self._counting:
            data = self._pending.get(source, b"") + data
            while len(data) >= 5 and len(data) >= 5 + (size := int.from_bytes(data[3:5], "big")):
                self.records += data[0] == APPLICATION_DATA
                data = data[5 + size:]
            self._pending[source] = data


@dataclass(frozen=True)
class Exchange:
    """One message between neighbours: as it came, as it was passed on (None: withheld), and the
    answer as it was given (None: withheld)."""

    name: str
    request: bytes
    sent: bytes
    status: int
    answer: bytes
    time: float


def contexts(pki, server, caller):
    """TLS as the gateway `server`, which asks for certificates, and as the gateway `caller`."""
    as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    as_server.load_cert_chain(pki / f"{server}.pem", pki / f"{server}.key")
    as_server.load_verify_locations(pki / "ca.pem")
    as_server.verify_mode = ssl.CERT_REQUIRED
    as_caller = ssl.create_default_context(cafile=str(pki / "ca.pem"))
    as_caller.load_cert_chain(pki / f"{caller}.pem", pki / f"{caller}.key")
    return as_server, as_caller


class Recorder:
    """Plays `server` to the gateway `caller` and the other way round, passes on every byte and keeps
    a copy of what stood inside TLS: `said` by the caller and `answered`, each connection by itself."""

    def __init__(self, pki, target, server, caller):
        self.said, self.answered = [], []
        self._target = target
        self._as_server, self._as_caller = contexts(pki, server, caller)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._ending = threading.Event()
        self.url = "https://127.0.0.1:%d" % self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def plaintext(self):
        return [bytes(x) for x in (*self.said, *self.answered)]

    def requests(self):
        """How often each message was sent."""
        return Counter(name.decode() for said in self.said
                       for name in re.findall(rb"POST /api/v1/kms/(\w+) HTTP", bytes(said)))

    def _accept(self):
        while not self._ending.is_set():
            try:
                near, _ = self._listener.accept()
            except TimeoutError:
                continue
            near.settimeout(60)
            thread = threading.Thread(target=self._serve, args=(near,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, raw):
        near = far = None
        try:
            near = self._as_server.wrap_socket(raw, server_side=True)
            plain = socket.create_connection(self._target, timeout=60)
            far = self._as_caller.wrap_socket(plain, server_hostname="localhost")
            self._pump(near, far)
        except OSError:
            pass  # a gateway that is stopped leaves broken connections: expected here
        finally:
            for sock in (near or raw, far):
                if sock is not None:
                    sock.close()

    def _pump(self, near, far):
        said, answered = bytearray(), bytearray()
        self.said.append(said)
        self.answered.append(answered)
        for sock in (near, far):
            sock.setblocking(False)
        while not self._ending.is_set():
            select.select([near, far], [], [], 0.1)
            for source, sink, copy in ((near, far, said), (far, near, answered)):
                for data in _ready(source):
                    if not data:
                        return
                    copy += data
                    _send(sink, data)

    def end(self):
        self._ending.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()


def _ready(sock):
    """What has come, in pieces; an empty one at the end of the connection."""
    while True:
        try:
            data = sock.recv(65536)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        yield data
        if not data:
            return


def _send(sock, data):
    while data:
        try:
            data = data[sock.send(data):]
        except ssl.SSLWantWriteError:
            select.select([], [sock], [], 5)
        except ssl.SSLWantReadError:
            select.select([sock], [], [], 5)


class Middleman:
    """Plays `server` (kme-b) to the calling gateway and `caller` (kme-a) to the real one.

    Hooks: before(name, body) -> body or DROP; after(name, body, status, answer) -> answer or DROP.
    """

    def __init__(self, pki, target, server, caller):
        self.exchanges = []
        self.before = lambda name, body: body
        self.after = lambda name, body, status, answer: answer
        self._target = target
        context, self._client = contexts(pki, server, caller)
        self._server = _Server(("127.0.0.1", 0), context, self)
        self.url = f"https://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def of(self, name):
        return [e for e in list(self.exchanges) if e.name == name]

    def pass_on(self, name, path, headers, body):
        """(status, type, answer), or None to hang up."""
        changed = self.before(name, body)
        if changed is DROP:
            self.exchanges.append(Exchange(name, body, None, 0, None, time.monotonic()))
            return None
        connection = http.client.HTTPSConnection(*self._target, timeout=60, context=self._client)
        try:
            connection.request("POST", path, body=changed,
                               headers={"Content-Type": headers.get("Content-Type", "application/json")})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        given = self.after(name, changed, response.status, answer)
        self.exchanges.append(Exchange(name, body, changed, response.status,
                                       None if given is DROP else given, time.monotonic()))
        if given is DROP:
            return None
        return response.status, response.headers.get("Content-Type", "application/json"), given

    def end(self):
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, context, middleman):
        super().__init__(address, _Handler)
        self.context = context
        self.middleman = middleman

    def get_request(self):
        sock, address = super().get_request()
        sock.settimeout(60)
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request, client_address):
        pass  # a gateway that is killed leaves broken connections: expected here


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.rpartition("/")[2]
        try:
            result = self.server.middleman.pass_on(name, self.path, self.headers, body)
        except (OSError, http.client.HTTPException):
            result = None
        if result is None:
            self.close_connection = True
            return
        status, kind, answer = result
        head = (f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(answer)}\r\n\r\n").encode()
        self.wfile.write(head + answer)

    def log_message(self, *_):
        pass
