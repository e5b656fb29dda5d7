# SPDX-License-Identifier: Apache-2.0
"""An application of ETSI GS QKD 004 over TLS or plain TCP: profile bin in both dialects, and json."""

import contextlib
import json
import socket
import ssl
import struct
import threading
import uuid
from dataclasses import dataclass, field

OPEN, GET, CLOSE = 2, 4, 8
NULL = bytes(16)
VERSION = {"a": b"\2\1\1", "b": b"\1\0\1"}
QOS = {"chunk_size": 32, "max_bps": 0, "min_bps": 0, "jitter_bps": 0, "priority": 0, "timeout_ms": 20000,
       "ttl_s": 600}


class Closed(Exception):
    """The gateway closed the connection."""


@dataclass
class Answer:
    status: int
    ksid: bytes = NULL
    qos: dict = field(default_factory=dict)
    mimetype: str = ""
    index: int = 0
    key: bytes = b""
    metadata: bytes = b""
    needed: int = 0


class App:
    """One application; in dialect A every call has a connection of its own."""

    def __init__(self, endpoint, pki=None, name=None, dialect="b", timeout=120):
        self.endpoint = endpoint
        self.dialect = dialect
        self.timeout = timeout
        self._tls = None
        self._sock = None
        self._read = b""
        if pki:
            self._tls = ssl.create_default_context(cafile=str(pki / "ca.pem"))
            self._tls.check_hostname = False
            if name:
                self._tls.load_cert_chain(str(pki / f"{name}.pem"), str(pki / f"{name}.key"))

    # --- bytes ---------------------------------------------------------------------------------

    def connect(self):
        raw = socket.create_connection(self.endpoint, self.timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = self._tls.wrap_socket(raw) if self._tls else raw
        self._read = b""
        return self._sock

    def close_connection(self):
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.close()
            self._sock = None

    def send(self, data):
        try:
            (self._sock or self.connect()).sendall(data)
        except (ConnectionError, ssl.SSLError) as error:
            raise Closed from error

    def receive(self, n):
        while len(self._read) < n:
            try:
                more = self._sock.recv(65536)
            except (ConnectionError, ssl.SSLError) as error:
                raise Closed from error
            if not more:
                raise Closed
            self._read += more
        data, self._read = self._read[:n], self._read[n:]
        return data

    def message(self):
        header = self.receive(8)
        return header, self.receive(struct.unpack(">I", header[4:])[0])

    def ask(self, service, payload):
        self.send(VERSION[self.dialect] + bytes([service]) + struct.pack(">I", len(payload)) + payload)
        header, answer = self.message()
        assert header[:4] == VERSION[self.dialect] + bytes([service + 1]), header
        if self.dialect == "a":
            self.close_connection()
        return answer

    # --- calls ----------------------------------------------------------------------------------

    def open(self, source, destination, ksid=None, mimetype="application/json", **qos):
        q = {**QOS, **qos}
        mime = mimetype.encode() + b"\0" if self.dialect == "a" else mimetype.encode().ljust(256, b"\0")
        payload = source.encode() + b"\0" + destination.encode() + b"\0" + struct.pack(
            ">7I", *(q[k] for k in QOS)) + mime + (ksid or NULL)
        a = self.ask(OPEN, payload)
        answer = Answer(struct.unpack(">I", a[:4])[0])
        if len(a) > 4:
            answer.qos = dict(zip(QOS, struct.unpack(">7I", a[4:32])))
            answer.mimetype = a[32:-16].split(b"\0")[0].decode()
            answer.ksid = a[-16:]
        return answer

    def get(self, ksid, index, metadata=1024):
        a = self.ask(GET, ksid + struct.pack(">II", index, metadata if self.dialect == "b" else 0))
        answer = Answer(struct.unpack(">I", a[:4])[0], index=index)
        if len(a) == 8:
            answer.needed = struct.unpack(">I", a[4:])[0]
        elif len(a) > 8:
            answer.index, size = struct.unpack(">II", a[4:12])
            answer.key = a[12:12 + size]
            answer.metadata = a[16 + size:]
        return answer

    def get_many(self, ksid, first, count):
        """The answers to GET_KEY of so many chunks in a row, asked for all at once (dialect B)."""
        self.send(b"".join(VERSION["b"] + bytes([GET]) + struct.pack(">I", 24) + ksid +
                           struct.pack(">II", index, 0) for index in range(first, first + count)))
        for index in range(first, first + count):
            _, a = self.message()
            status = struct.unpack(">I", a[:4])[0]
            got, size = struct.unpack(">II", a[4:12]) if len(a) > 8 else (index, 0)
            yield Answer(status, index=got, key=a[12:12 + size])

    def close(self, ksid):
        return struct.unpack(">I", self.ask(CLOSE, ksid))[0]


class JsonApp(App):
    """The same calls in profile json; `wrapped` as NetXPTO has them. Answers may come unasked, too."""

    NAMES = {"chunk_size": "key_chunk_size", "timeout_ms": "timeout", "ttl_s": "ttl", "jitter_bps": "jitter"}

    def __init__(self, endpoint, pki=None, name=None, wrapped=False, timeout=120):
        super().__init__(endpoint, pki, name, "json", timeout)
        self.wrapped = wrapped

    def tell(self, command, data):
        self.send(json.dumps({"command": command, "data": data}, separators=(",", ":")).encode())

    def hear(self):
        """The next object, whole or in pieces; JSON tells where it ends."""
        while True:
            try:
                answer, end = json.JSONDecoder().raw_decode(self._read.decode())
                self._read = self._read[end:]
                return answer
            except ValueError:
                self._read += self.receive_some()

    def receive_some(self):
        try:
            more = self._sock.recv(65536)
        except (ConnectionError, ssl.SSLError) as error:
            raise Closed from error
        if not more:
            raise Closed
        return more

    def answer(self, command):
        a = self.hear()
        if self.wrapped:
            assert sorted(a) == ["command", "data"] and a["command"] == f"{command}_RESPONSE", a
            a = a["data"]
        assert "command" not in a, a
        return a

    def ask(self, command, data):
        self.tell(command, data)
        return self.answer(command)

    def open(self, source, destination, ksid=None, mimetype="application/json", **qos):
        q = {self.NAMES.get(k, k): v for k, v in {**QOS, **qos}.items()}
        q["metadata_mimetype"] = mimetype
        if self.wrapped:
            q["key_type"] = 2
        data = {"source": source, "destination": destination, "qos": q}
        if ksid:
            data["key_stream_id"] = str(uuid.UUID(bytes=ksid))
        a = self.ask("OPEN_CONNECT", data)
        answer = Answer(a["status"], uuid.UUID(a["key_stream_id"]).bytes)
        if a["qos"]:
            answer.qos = {k: a["qos"][self.NAMES.get(k, k)] for k in QOS}
            answer.mimetype = a["qos"]["metadata_mimetype"]
        return answer

    def tell_get(self, ksid, index, metadata=1024):
        data = {"key_stream_id": str(uuid.UUID(bytes=ksid))}
        if index is not None:
            data["index"] = index
        if metadata is not None:
            data["metadata"] = {"size": metadata, "buffer": ""}
        self.tell("GET_KEY", data)

    def chunk(self):
        a = self.answer("GET_KEY")
        answer = Answer(a["status"], index=a["index"], key=bytes(a["key_buffer"]),
                        metadata=a["metadata"]["buffer"].encode())
        answer.needed = a["metadata"]["size"] if a["status"] == 8 else 0
        return answer

    def get(self, ksid, index, metadata=1024):
        self.tell_get(ksid, index, metadata)
        return self.chunk()

    def close(self, ksid):
        return self.ask("CLOSE", {"key_stream_id": str(uuid.UUID(bytes=ksid))})["status"]


def new_ksid():
    return uuid.uuid4().bytes


# --- applications of a network (network.py) ------------------------------------------------------------

def app(network, name, dialect="b", plain=False, certificate=None):
    node = network.topology.home(name)
    return App(network.endpoints[f"{node.name}/app"], None if plain else network.pki,
               certificate or name, dialect)


def uri(network, name):
    node = network.topology.home(name)
    return next(s for s in node.saes if s.name == name).uri(node)


def later(call, *arguments, **options):
    """Begins a call; the function that it returns waits for what it gives."""
    result = []
    thread = threading.Thread(target=lambda: result.append(call(*arguments, **options)), daemon=True)
    thread.start()

    def wait():
        thread.join(120)
        assert result, "the call did not come back"
        return result[0]
    wait.thread = thread
    return wait


def open_pair(network, one, other, first="alice", second="bob", **qos):
    opened = one.open(uri(network, first), uri(network, second), **qos)
    assert opened.status == 0
    joined = other.open(uri(network, second), uri(network, first), opened.ksid)
    assert joined.status == 0 and joined.ksid == opened.ksid and joined.qos == opened.qos
    return opened.ksid


def compare(one, other, ksid, count, first=0):
    for index in range(first, first + count):
        a, b = one.get(ksid, index), other.get(ksid, index)
        assert a.status == b.status == 0, (index, a.status, b.status)
        assert a.index == b.index == index
        assert a.key == b.key and len(a.key) > 0
    return a
