# SPDX-License-Identifier: Apache-2.0
"""A QKD link played in Python: two ETSI 004 key managers (profile bin) that know the same key.

It speaks the bytes captured from real software (dialect A: one request per connection, the
whole message in one record; dialect B: persistent), notes every request, and can be told to
answer wrongly. The test knows every chunk: chunk(ksid, index).
"""

import hashlib
import socket
import ssl
import struct
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass

from tcp_way import cut

OPEN, GET, CLOSE = 2, 4, 8
NO_KEY, NO_STREAM, IN_USE = 2, 4, 5
VERSION = {"a": (2, 1, 1), "b": (1, 0, 1)}
NULL = bytes(16)


@dataclass(frozen=True)
class Request:
    end: str
    connection: int
    header: bytes
    payload: bytes
    time: float

    @property
    def service(self):
        return self.header[3]

    @property
    def ksid(self):
        return self.payload[-16:] if self.service == OPEN else self.payload[:16]

    @property
    def index(self):
        return struct.unpack(">I", self.payload[16:20])[0]


def message(dialect, service, payload):
    return bytes((*VERSION[dialect], service)) + struct.pack(">I", len(payload)) + payload


class Broken(Exception):
    """The client did what the reference software does not survive."""


class Source:
    """Both ends of a link. `hook(request, answer)` may return other bytes, or None to hang up."""

    def __init__(self, dialect="b", pki=None, client_certificate=True, chunk_size=32, seed="seed",
                 sim_names=("sim-a", "sim-b"), metadata=None):
        self.dialect = dialect
        self.chunk_size = chunk_size
        self.seed = seed.encode()
        self.requests = []
        self.complaints = []
        self.hook = None
        self.limit = None        # first index not available yet
        self.fixed_ksids = []    # KSIDs to give out next
        self.metadata = metadata if metadata is not None else b'{"age": 0, "hops": 0}'
        self._pki = pki
        self._client_certificate = client_certificate
        self._open = {}          # ksid -> set of ends
        self._known = set()
        self._lock = threading.Lock()
        self._connections = 0
        self._serving = Counter()  # connections by end
        self._sockets = set()
        self._ended = False
        self.addresses = {}
        self._listeners = [self._listen(name) for name in sim_names]

    # --- key --------------------------------------------------------------------------------

    def chunk(self, ksid, index):
        return hashlib.shake_256(self.seed + ksid + struct.pack(">I", index)).digest(self.chunk_size)

    def positions(self, ksid, key):
        """The indexes of the chunks of a delivered key on one stream, or None."""
        with self._lock:
            top = max((r.index for r in self.requests if r.service == GET and r.ksid == ksid),
                      default=-1)
        first = key[:self.chunk_size]
        for index in range(top + 1):
            if self.chunk(ksid, index)[:len(first)] == first:
                count = -(-len(key) // self.chunk_size)
                whole = b"".join(self.chunk(ksid, index + i) for i in range(count))
                return list(range(index, index + count)) if whole[:len(key)] == key else None
        return None

    def locate(self, key):
        """(KSID, chunk indexes) of a delivered key, or None."""
        for ksid in sorted(self._known):
            if found := self.positions(ksid, key):
                return ksid, found
        return None

    def seen(self, service=None, end=None, ksid=None):
        with self._lock:
            return [r for r in self.requests
                    if service in (None, r.service) and end in (None, r.end)
                    and (ksid is None or r.ksid == ksid)]

    def open_streams(self):
        """{KSID: ends that have it open}"""
        with self._lock:
            return {ksid: set(ends) for ksid, ends in self._open.items() if ends}

    # --- sockets ----------------------------------------------------------------------------

    def _context(self, name):
        if self._pki is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._pki / f"{name}.pem", self._pki / f"{name}.key")
        if self._client_certificate:
            context.load_verify_locations(self._pki / "ca.pem")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _listen(self, name):
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.addresses[name] = listener.getsockname()
        threading.Thread(target=self._accept, args=(name, listener, self._context(name)),
                         daemon=True).start()
        return listener

    def _accept(self, name, listener, context):
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self._serving[name] += 1
            threading.Thread(target=self._serve, args=(name, raw, context), daemon=True).start()

    def connected(self, end):
        """How many connections there are to an end; what a client that was killed had sent is in `requests`
        when there is none."""
        with self._lock:
            return self._serving[end]

    def _serve(self, name, raw, context):
        raw.settimeout(60)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock = raw
        try:
            if context:
                sock = context.wrap_socket(raw, server_side=True)
            with self._lock:
                self._connections += 1
                number = self._connections
                self._sockets.add(sock)
            self._talk(name, number, sock)
        except Broken as error:
            self.complaints.append(f"{name}: {error}")
        except (OSError, ssl.SSLError):
            pass
        finally:
            with self._lock:
                self._sockets.discard(sock)
                self._serving[name] -= 1
            sock.close()

    def _receive(self, sock, first):
        """One message the way the dialect's software reads it."""
        header = self._read(sock, 8)
        if not header:
            if first and self.dialect == "a":
                raise Broken("connection closed without a request")
            return None
        size = struct.unpack(">I", header[4:])[0]
        payload = self._read(sock, size)
        return (header, payload) if len(payload) == size else None

    def _read(self, sock, size):
        """Exactly so many bytes, or none at the end; dialect A's software does not reassemble."""
        data = b""
        while len(data) < size:
            part = sock.recv(size - len(data))
            data += part
            if not part:
                break
            if len(data) < size and self.dialect == "a":
                raise Broken(f"{size} bytes split after {len(data)}")
        if data and len(data) < size:
            raise Broken(f"end after {len(data)} of {size} bytes")
        return data

    def _talk(self, name, number, sock):
        first = True
        while not self._ended:
            received = self._receive(sock, first)
            if received is None:
                return
            first = False
            request = Request(name, number, *received, time.monotonic())
            with self._lock:
                self.requests.append(request)
            answer = self._answer(request)
            if self.hook is not None:
                answer = self.hook(request, answer)
            if answer is None:
                return
            sock.sendall(answer)
            if self.dialect == "a":
                return

    # --- answers ----------------------------------------------------------------------------

    def _answer(self, r):
        handler = {OPEN: self._open_connect, GET: self._get_key, CLOSE: self._close}.get(r.service)
        if handler is None:
            return message(self.dialect, 0, b"")
        return message(self.dialect, r.service + 1, handler(r))

    def _failed(self, status, rest):
        return struct.pack(">I", status) + (rest if self.dialect == "a" else b"")

    def _open_connect(self, r):
        after_names = r.payload.split(b"\0", 2)[2]
        qos = after_names[:-16]
        with self._lock:
            ksid = r.ksid
            if ksid == NULL:
                ksid = self.fixed_ksids.pop(0) if self.fixed_ksids else uuid.uuid4().bytes
            ends = self._open.setdefault(ksid, set())
            self._known.add(ksid)
            if r.end in ends:
                return self._failed(IN_USE, qos + ksid)
            ends.add(r.end)
        return struct.pack(">I", 0) + qos + ksid

    def _get_key(self, r):
        with self._lock:
            opened = r.end in self._open.get(r.ksid, ())
        empty = struct.pack(">III", r.index, 0, 0)
        if not opened:
            return self._failed(NO_STREAM, empty)
        if self.limit is not None and r.index >= self.limit:
            time.sleep(0.05)
            return self._failed(NO_KEY, empty)
        return self.get_answer(r.index, self.chunk(r.ksid, r.index))

    def get_answer(self, index, key, status=0):
        return (struct.pack(">III", status, index, len(key)) + key
                + struct.pack(">I", len(self.metadata)) + self.metadata)

    def _close(self, r):
        with self._lock:
            self._open.get(r.ksid, set()).discard(r.end)
        return struct.pack(">I", 0)

    def forget(self):
        """As if the key managers had restarted without their streams."""
        with self._lock:
            self._open.clear()
        self.hang_up()

    def hang_up(self):
        with self._lock:
            sockets = list(self._sockets)
        cut(*sockets)

    def end(self):
        self._ended = True
        cut(*self._listeners)
        for listener in self._listeners:
            listener.close()
        self.hang_up()
