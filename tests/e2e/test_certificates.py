# SPDX-License-Identifier: Apache-2.0
"""Who may talk to the listeners: every wrong kind of certificate, and the right one beside it."""

import socket
import ssl
import time
import uuid

import pytest

from client import Client, tls_context

# What a client sees when TLS refuses its certificate: an alert, or a connection that just ends.
REFUSED = (ssl.SSLError, ConnectionError, EOFError)


def works(network):
    with network.client("alice") as alice:
        assert alice.status("sae-bob").status == 200


@pytest.mark.parametrize("certificate", ["expired", "foreign", "revoked"])
def test_tls_refuses_a_bad_certificate(network, certificate):
    with network.client("alice", certificate=certificate) as client:
        try:
            answer = client.status("sae-bob")
        except REFUSED:
            pass
        else:  # where TLS let it through, the server has to say no, without a body
            assert (answer.status, answer.body) == (401, b"")
    works(network)


def test_tls_refuses_a_client_without_a_certificate(network):
    with Client(network.url("kme-a"), network.pki / "ca.pem") as client:
        try:
            answer = client.status("sae-bob")
        except REFUSED:
            pass
        else:
            assert (answer.status, answer.body) == (401, b"")
    works(network)


@pytest.mark.parametrize("certificate", ["wrongname", "kme-a", "sim-a", "zoe"])
def test_a_certificate_of_ours_that_names_no_sae_gets_401_without_a_body(network, certificate):
    with network.client("alice", certificate=certificate) as client:
        for path in ("/api/v1/keys/sae-bob/status", "/api/v1/keys/sae-bob/enc_keys"):
            answer = client.request("GET", path)
            assert (answer.status, answer.body) == (401, b"")
    works(network)


def test_an_sae_of_another_node_is_nobody_here(network):
    with network.client("bob", at="kme-a") as bob:
        answer = bob.enc("sae-alice")
        assert (answer.status, answer.body) == (401, b"")


def test_tls_1_2_is_refused_where_1_3_is_the_least(network):
    context = tls_context(network.pki / "ca.pem", network.pki / "alice.pem", network.pki / "alice.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(REFUSED):
        handshake(network.endpoints["kme-a/sae"], context)
    works(network)


def test_tls_1_2_is_taken_where_the_configuration_says_so(make_network):
    net = make_network(tweak=lambda name, config: config["sae_listener"].update(min_version="1.2"))
    context = tls_context(net.pki / "ca.pem", net.pki / "alice.pem", net.pki / "alice.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(net.endpoints["kme-a/sae"], context) == "TLSv1.2"


def handshake(address, context):
    with socket.create_connection(address, timeout=120) as raw:
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            version = tls.version()
            tls.sendall(b"GET /api/v1/keys/sae-bob/status HTTP/1.1\r\nHost: x\r\n\r\n")
            if not tls.recv(100).startswith(b"HTTP/1.1 200"):
                raise EOFError
            return version


def test_plain_http_gets_nothing(network):
    with socket.create_connection(network.endpoints["kme-a/sae"], timeout=120) as plain:
        plain.sendall(b"GET /api/v1/keys/sae-bob/status HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            assert b"200" not in plain.recv(1000)
        except ConnectionError:
            pass
    works(network)


# --- the neighbours' listener ------------------------------------------------------------------

def kms(network, certificate):
    host, port = network.endpoints["kme-a/kms"]
    return Client(f"https://{host}:{port}", network.pki / "ca.pem",
                  network.pki / f"{certificate}.pem", network.pki / f"{certificate}.key")


def test_the_neighbours_listener_is_for_neighbours(network):
    with kms(network, "kme-b") as neighbour:
        assert neighbour.request("POST", "/api/v1/kms/get_status", {}).status == 200
    for other in ("alice", "bob", "kme-c", "sim-a", "wrongname"):
        with kms(network, other) as client:
            answer = client.request("POST", "/api/v1/kms/get_status", {})
            assert (answer.status, answer.body) == (401, b""), other


def test_a_neighbour_of_a_foreign_authority_is_refused(network):
    with kms(network, "kme-b-foreign") as client:
        with pytest.raises(REFUSED):
            client.request("POST", "/api/v1/kms/get_status", {})
    works(network)


def test_the_neighbours_listener_serves_no_keys(network):
    with kms(network, "kme-b") as neighbour:
        assert neighbour.request("GET", "/api/v1/keys/sae-bob/enc_keys").status == 404


def test_a_neighbour_cannot_begin_epochs_at_will(make_network):
    """Each leaves rows in the database for as long as keys live."""
    net = make_network(stock=1)
    net.gateways["kme-b"].stop()
    begun, since, took_s = 0, time.monotonic(), 0
    with kms(net, "kme-b") as neighbour:
        while took_s < 4 or (begun == 0 and took_s < 60):
            answer = neighbour.request("POST", "/api/v1/kms/new_app", {
                "version": 1, "stream": "b-to-a", "opener": "KME-B", "peer": "KME-A", "ksid": str(uuid.uuid4()),
                "nonce": uuid.uuid4().hex, "chunk_size": 32, "segment_chunks": 256, "owner": "opener",
                "inbound_chunks": 1000})
            assert answer.status in (200, 503)
            begun += answer.status == 200 and answer.json["result"] == "accepted"
            time.sleep(0.01)
            took_s = time.monotonic() - since
    assert 1 <= begun <= 2 + 2 * took_s, (begun, took_s)  # a hundred in a second otherwise
    net.restart("kme-b")
    net.wait_stock("bob", "alice", timeout_s=30)


def test_a_gateway_does_not_trust_a_foreign_neighbour_or_simulator(make_network):
    """KME-A is given certificates of another authority: its links stay down, its log says why."""
    net = make_network(start=False)

    def foreign_ca(config):
        config["kms_client"] = {"certificate": "pki/kme-a.pem", "key": "pki/kme-a.key",
                                "ca": "pki/foreign-ca.pem"}

    net.write_config("kme-a", foreign_ca)
    net.start()
    with net.client("alice") as alice:
        answer = alice.enc("sae-bob")
        assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
    net.gateways["kme-a"].stop()
    net.write_config("kme-a")
    net.restart("kme-a")
    net.wait_stock("alice", "bob", timeout_s=40)
