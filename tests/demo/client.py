# SPDX-License-Identifier: Apache-2.0
"""An SAE's side of ETSI GS QKD 014: HTTPS with a client certificate, connections kept alive."""

import base64
import http.client
import json
import ssl
import time
import urllib.parse
from dataclasses import dataclass

FRESH_S = 20  # a connection idle for longer is replaced, the server may be closing it


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def message(self):
        return self.json["message"]

    def keys(self):
        """[(key ID, key bytes)] of a key container."""
        return [(k["key_ID"], base64.b64decode(k["key"], validate=True)) for k in self.json["keys"]]


def tls_context(ca, certificate=None, key=None):
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca))
    if certificate:
        context.load_cert_chain(str(certificate), str(key))
    return context


class Client:
    """One SAE at one gateway. Not for several threads: each makes its own. `connector` replaces
    socket.create_connection."""

    def __init__(self, url, ca, certificate=None, key=None, timeout_s=60, connector=None):
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._context = tls_context(ca, certificate, key)
        self._timeout_s = timeout_s
        self._connector = connector
        self._connection = None
        self._used = 0.0

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _connected(self):
        if self._connection is not None and time.monotonic() - self._used > FRESH_S:
            self.close()
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(
                *self._address, timeout=self._timeout_s, context=self._context)
            if self._connector:
                self._connection._create_connection = self._connector
        return self._connection

    def request(self, method, path, body=None, headers=None):
        """The answer; an error of the connection is raised and ends the connection."""
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        headers = dict(headers or {})
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        try:
            connection = self._connected()
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        return answer

    @staticmethod
    def path(sae, call):
        return f"/api/v1/keys/{urllib.parse.quote(sae, safe='')}/{call}"

    def status(self, slave):
        return self.request("GET", self.path(slave, "status"))

    def enc(self, slave, **members):
        """POST enc_keys with the members given."""
        return self.request("POST", self.path(slave, "enc_keys"), body=members)

    def dec(self, master, *ids):
        """POST dec_keys."""
        return self.request("POST", self.path(master, "dec_keys"),
                            body={"key_IDs": [{"key_ID": i} for i in ids]})

    def get_dec(self, master, key_id):
        return self.request("GET", f"{self.path(master, 'dec_keys')}?key_ID={key_id}")
