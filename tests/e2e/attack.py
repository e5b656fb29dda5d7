# SPDX-License-Identifier: Apache-2.0
"""One attacker against one listener, as a process of its own: `attack.py JSON`. It says `ready` once
the attack stands, goes on until its input ends, and then says in JSON what it did.

An attacker comes from an address of its own on loopback, so that a limit for each address shows.
"""

import json
import selectors
import socket
import ssl
import sys
import threading
import time

ADDRESS = "127.0.0.2"
HELLO_PART = bytes.fromhex("160301020001 0001fc0303".replace(" ", ""))  # of a ClientHello of 512 bytes


class Attack:
    def __init__(self, endpoint, ca, certificate, key, size=100, path="/"):
        self.endpoint = tuple(endpoint)
        self.size = size
        self.path = path.encode()
        self.head = b"POST " + self.path + b" HTTP/1.1\r\nHost: kme\r\nContent-Type: application/json\r\n"
        self.context = ssl.create_default_context(cafile=ca)
        self.context.check_hostname = False
        self.nobody = ssl.create_default_context(cafile=ca)
        self.nobody.check_hostname = False
        self.context.load_cert_chain(certificate, key)
        self.ending = threading.Event()
        self.done = {"made": 0, "refused": 0, "sent": 0}

    def raw(self):
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(10)
        try:
            sock.bind((ADDRESS, 0))
            sock.connect(self.endpoint)
        except OSError:
            sock.close()
            raise
        self.done["made"] += 1
        return sock

    def secure(self, context=None):
        sock = self.raw()
        try:
            return (context or self.context).wrap_socket(sock)
        except (OSError, ssl.SSLError):
            sock.close()
            raise

    def many(self, make):
        """As many connections as are let in."""
        made = []
        for _ in range(self.size):
            try:
                made.append(make())
            except OSError:
                self.done["refused"] += 1
        return made

    def drip(self, sockets, data):
        """A byte to each in turn; who is cut off begins no more."""
        print("ready", flush=True)
        for byte in data:
            for sock in list(sockets):
                try:
                    sock.sendall(bytes([byte]))
                    self.done["sent"] += 1
                except OSError:
                    self.done["refused"] += 1
                    sockets.remove(sock)
            if self.ending.wait(0.05):
                return

    # --- slow ones --------------------------------------------------------------------------------

    def slow_headers(self):
        self.drip(self.many(self.secure), self.head + b"X-Slow: " + b"x" * 4000)

    def slow_body(self):
        self.drip(self.many(self.begun), b" " * 3000)

    def begun(self):
        """A connection with a request whose body is to come."""
        sock = self.secure()
        sock.sendall(self.head + b"Content-Length: 3000\r\n\r\n")
        return sock

    def slow_handshake(self):
        sockets = self.many(self.raw)
        self.drip(sockets, HELLO_PART + bytes(480))

    # --- floods -----------------------------------------------------------------------------------

    def forever(self, step):
        print("ready", flush=True)
        while not self.ending.is_set():
            try:
                step()
            except OSError:
                self.done["refused"] += 1

    def connections(self):
        self.forever(lambda: self.raw().close())

    def handshakes(self):
        self.forever(lambda: self.secure().close())

    def strangers(self):
        """Without a certificate: the server has signed before it knows."""
        def step():
            with self.secure(self.nobody) as sock:
                sock.recv(1)  # TLS 1.3: the refusal comes after the client's side is done
        self.forever(step)

    # --- records ----------------------------------------------------------------------------------

    def tiny_records(self):
        """A body in records of one byte each, as fast as they go."""
        def step():
            with self.secure() as sock:
                sock.sendall(self.head + b"Content-Length: 3000\r\n\r\n")
                for _ in range(2999):
                    sock.sendall(b" ")
                    self.done["sent"] += 1
                    if self.ending.is_set():
                        return
        self.forever(step)

    def huge_records(self):
        """Bodies beyond every limit in records as large as TLS has."""
        def step():
            with self.secure() as sock:
                sock.sendall(self.head + b"Content-Length: 300000\r\n\r\n")
                for _ in range(18):
                    sock.sendall(b" " * 16384)
                    self.done["sent"] += 16384
        self.forever(step)

    def headers(self):
        """As many headers as go into one request, again and again."""
        bomb = b"GET " + self.path + b" HTTP/1.1\r\nHost: kme\r\n" + b"".join(b"a%d:\r\n" % i for i in range(3000))

        def step():
            with self.secure() as sock:
                sock.sendall(bomb + b"\r\n")
                self.done["sent"] += len(bomb)
                sock.recv(100)
        self.forever(step)

    def bodies(self):
        """JSON that is deep, and numbers that are long, over one connection."""
        bombs = (b"[" * 4000, b'{"number": 1e' + b"9" * 3900 + b"}", b'{"a":' * 700, b"9" * 4000)

        def step():
            with self.secure() as sock:
                for bomb in bombs:
                    sock.sendall(self.head + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)
                    self.done["sent"] += 1
                    if not sock.recv(4096):
                        return
        self.forever(step)

    # --- mere presence ----------------------------------------------------------------------------

    def idle(self):
        """Connections that asked something once and then say nothing."""
        sockets = self.many(self.secure)
        for sock in sockets:
            sock.sendall(b"GET " + self.path + b" HTTP/1.1\r\nHost: kme\r\n\r\n")
        selector = selectors.DefaultSelector()
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ)
        answered = set()
        end = time.monotonic() + 120
        while len(answered) < len(sockets) and time.monotonic() < end:
            for key, _ in selector.select(1):
                key.fileobj.recv(65536)
                answered.add(key.fd)
        self.done["open"] = len(answered)
        print("ready", flush=True)
        self.ending.wait()


KINDS = ("slow_headers", "slow_body", "slow_handshake", "connections", "handshakes", "strangers", "tiny_records",
         "huge_records", "headers", "bodies", "idle")


def main():
    options = json.loads(sys.argv[1])
    attack = Attack(**{k: v for k, v in options.items() if k != "kind"})

    def wait():
        sys.stdin.read()
        attack.ending.set()

    threading.Thread(target=wait, daemon=True).start()
    getattr(attack, options["kind"])()
    attack.ending.wait()
    print(json.dumps(attack.done), flush=True)


if __name__ == "__main__":
    main()
