# SPDX-License-Identifier: Apache-2.0
"""An application of profile http-push: its calls, and its listener, to which the gateway pushes."""

import base64
import http.client
import http.server
import json
import ssl
import threading
import uuid

API = "/api/v1/kms/etsi004"


class Taker:
    """An application's listener; `judge(index)` says the status of HTTP for each push, None hangs up."""

    def __init__(self, pki, certificate="sim-a"):
        self.pushed, self.callers, self.judge = [], set(), lambda index: 201
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.path == "/api/v1/qkd/etsi004/key-material" and body["status"] == 0
                outer.callers.add(str(self.connection.getpeercert()["subjectAltName"]))
                status = outer.judge(body["index"])
                if status is None:
                    self.close_connection = True
                    return
                if status < 300:
                    outer.pushed.append((uuid.UUID(body["metadata"]["buffer"]["key_stream_id"]).bytes, body["index"],
                                         base64.b64decode(body["key_buffer"], validate=True)))
                answer = b'{"status":0}' if status < 300 else b'{"status":4}'
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(pki / f"{certificate}.pem"), str(pki / f"{certificate}.key"))
        context.load_verify_locations(str(pki / "ca.pem"))
        context.verify_mode = ssl.CERT_REQUIRED
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                do_handshake_on_connect=False)  # but in its thread
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def indexes(self, ksid):
        return [index for k, index, _ in self.pushed if k == ksid]

    def keys(self, ksid):
        return {index: key for k, index, key in self.pushed if k == ksid}

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class HttpApp:
    """The calls of the application: one connection, kept."""

    def __init__(self, network, name):
        context = ssl.create_default_context(cafile=str(network.pki / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(str(network.pki / f"{name}.pem"), str(network.pki / f"{name}.key"))
        host, port = network.endpoints[f"{network.topology.home(name).name}/app"]
        self.connection = http.client.HTTPSConnection(host, port, context=context, timeout=120)

    def call(self, method, path, body):
        self.connection.request(method, API + path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else {"status": 0}

    def open(self, source, destination, ksid=None, **qos):
        body = {"source": source, "destination": destination,
                "qos": {"key_chunk_size": 32, "timeout": 20000, "ttl": 600, **qos}}
        if ksid:
            body["key_stream_id"] = str(uuid.UUID(bytes=ksid))
        status, answer = self.call("POST", "/open-connect", body)
        return status, answer["status"], uuid.UUID(answer["key_stream_id"]).bytes if status == 201 else None

    def get(self, ksid, index=None):
        body = {"key_stream_id": str(uuid.UUID(bytes=ksid)), "metadata": {"size": 0, "buffer": ""}}
        status, answer = self.call("GET", "/get-key", body if index is None else {**body, "index": index})
        return status, answer["status"]

    def close(self, ksid):
        status, answer = self.call("PUT", "/close", {"key_stream_id": str(uuid.UUID(bytes=ksid))})
        return status, answer["status"]
