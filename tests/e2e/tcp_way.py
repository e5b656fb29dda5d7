# SPDX-License-Identifier: Apache-2.0
"""A TCP relay on loopback, below TLS: what stands between a gateway and another's listener."""

import socket
import threading

LOOPBACK = "127.0.0.1"


def cut(*sockets):
    """Ends connections, and who waits for one, from any thread."""
    for sock in sockets:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class TcpWay:
    """Passes on to `target` whatever comes to `address`, each connection with one of its own."""

    def __init__(self, target):
        self._target = target
        self._lock = threading.Lock()
        self._sockets = set()
        self._ended = False
        self._listener = socket.create_server((LOOPBACK, 0), backlog=128)
        self.address = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def passing(self, source, data):
        """Called with what has come from a socket before it goes on."""

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
            far = socket.create_connection(self._target, timeout=60)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._sockets |= {near, far}
            ended = self._ended
        if ended:
            cut(near, far)
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
                self.passing(source, data)
                sink.sendall(data)
        except OSError:
            pass  # a gateway that was killed
        cut(source, sink)

    def end(self):
        cut(self._listener)
        self._listener.close()
        with self._lock:
            self._ended = True
            sockets = list(self._sockets)
        cut(*sockets)
