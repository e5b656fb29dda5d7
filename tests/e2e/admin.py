# SPDX-License-Identifier: Apache-2.0
"""The admin interface from outside: HTTP over its Unix socket, and qkdgatectl."""

import http.client
import json
import socket
import subprocess

from client import Answer, Client
from network import binary


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout_s):
        super().__init__("localhost", timeout=timeout_s)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Local:
    """One operator at the socket; a connection for each request."""

    def __init__(self, path, timeout_s=120):
        self._path, self._timeout_s = path, timeout_s

    def request(self, method, path, body=None):
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            data = None if body is None else body if isinstance(body, (str, bytes)) else json.dumps(body)
            connection.request(method, path, body=data)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path):
        answer = self.request("GET", path)
        assert answer.status == 200, (path, answer.status, answer.body)
        return answer.json

    def post(self, path, body=None):
        return self.request("POST", path, body)

    def stream(self, name):
        return self.get(f"/api/v1/streams/{name}")


def local(net, node="kme-a"):
    return Local(net.admin_socket(node))


def https(net, certificate="admin", node="kme-a"):
    """A client of the HTTPS listener."""
    return Client(net.admin_url(node), net.pki / "ca.pem", certificate and net.pki / f"{certificate}.pem",
                  certificate and net.pki / f"{certificate}.key")


def ctl(net, *arguments, node="kme-a", where=None, timeout_s=180):
    """Runs qkdgatectl at the socket: (exit status, standard output, standard error)."""
    where = ["--socket", net.admin_socket(node)] if where is None else where
    done = subprocess.run([binary("qkdgatectl"), *where, *arguments], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout_s)
    return done.returncode, done.stdout, done.stderr


def over_https(net, certificate="admin", node="kme-a"):
    return ["--url", net.admin_url(node), "--ca", net.pki / "ca.pem", "--cert", net.pki / f"{certificate}.pem",
            "--key", net.pki / f"{certificate}.key"]
