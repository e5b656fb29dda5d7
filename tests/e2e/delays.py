# SPDX-License-Identifier: Apache-2.0
"""Ways between gateways that take their time, or for a while let nothing through: TCP relays on
loopback, below TLS."""

import random
import socket
import threading
import time

LOOPBACK = "127.0.0.1"


class Way:
    """From one gateway to another's listener. What goes over it comes late by `delay_s` and up to as
    much again, in its order; while it is shut nothing comes, and every connection stays open."""

    def __init__(self, target, seed):
        self.delay_s = 0
        self._target = target
        self._rng = random.Random(seed)
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._sockets = set()
        self._ended = False
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.url = "https://%s:%d" % self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self, on):
        if on:
            self._open.clear()
        else:
            self._open.set()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near):
        """A gateway that does not listen hangs up on who calls."""
        try:
            far = socket.create_connection(self._target, timeout=10)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._sockets |= {near, far}
            ended = self._ended
        if ended:
            self._cut(near, far)
            return
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._sockets -= {near, far}
        near.close()
        far.close()

    def _pump(self, source, sink):
        try:
            while data := source.recv(1 << 20):
                if self.delay_s:
                    time.sleep(self.delay_s * self._rng.uniform(1, 2))
                self._open.wait()
                sink.sendall(data)
        except OSError:
            pass  # a gateway that was killed
        self._cut(source, sink)

    @staticmethod
    def _cut(*sockets):
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def end(self):
        self.shut(False)
        self._cut(self._listener)
        self._listener.close()
        with self._lock:
            self._ended = True
            sockets = list(self._sockets)
        self._cut(*sockets)


class Ways:
    """Between all gateways of a network that has not started: one in each direction, and both of two
    nodes behave alike."""

    def __init__(self, net, seed):
        self._of = {}
        for node in net.topology.nodes:
            for neighbour in net.topology.neighbours_of(node.name):
                way = Way(net.endpoints[f"{neighbour.name}/kms"], f"{seed} {node.name} {neighbour.name}")
                net.put_between(node.name, neighbour.name, way.url)
                self._of.setdefault(tuple(sorted((node.name, neighbour.name))), []).append(way)

    def pairs(self):
        return sorted(self._of)

    def delay(self, pair, delay_s):
        for way in self._of[pair]:
            way.delay_s = delay_s

    def shut(self, pair, on):
        for way in self._of[pair]:
            way.shut(on)

    def end(self):
        for ways in self._of.values():
            for way in ways:
                way.end()
