# SPDX-License-Identifier: Apache-2.0
"""qkdgate-get and libqkdgate against running gateways."""

import base64
import re
import socket
import subprocess
import time


import pytest

from network import LOOPBACK, PROJECT, Ports, binary, build_folder
from processes import wait_for

HEX = {"hex": lambda t: bytes.fromhex(t.strip()), "base64": lambda t: base64.b64decode(t, validate=False),
       "wireguard": lambda t: base64.b64decode(t), "psk": lambda t: bytes.fromhex(t.strip().split(":")[1]),
       "openssl": lambda t: bytes.fromhex(t.split()[3]),
       "strongswan": lambda t: bytes.fromhex(re.search(r"secret = 0x([0-9a-f]+)", t).group(1))}


def get(network, sae, *arguments, certificate=None, url=None):
    """qkdgate-get as that SAE at its gateway."""
    name = certificate or sae
    command = [binary("qkdgate-get"), "--url", url or network.url(network.topology.home(sae).name),
               "--ca", network.pki / "ca.pem", "--cert", network.pki / f"{name}.pem",
               "--key", network.pki / f"{name}.key", *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, timeout=180)


def pair(network, form, folder, size=256):
    """A key in that form at both ends: what the two files hold."""
    mine, theirs = folder / "mine", folder / "theirs"
    first = get(network, "alice", "--slave", "sae-bob", "--size", size, "--format", form, "--output", mine)
    assert first.returncode == 0, first.stderr
    key_id = first.stdout.decode().strip()
    second = get(network, "bob", "--master", "sae-alice", "--id", key_id, "--format", form, "--output", theirs)
    assert second.returncode == 0, second.stderr
    assert second.stdout.decode().strip() == key_id
    return key_id, mine.read_bytes(), theirs.read_bytes()


@pytest.mark.parametrize("form", sorted(HEX))
def test_a_key_in_each_form_is_the_same_at_both_ends(network, tmp_path, form):
    key_id, mine, theirs = pair(network, form, tmp_path)
    assert mine == theirs and len(HEX[form](mine.decode())) == 32
    if form in ("psk", "openssl", "strongswan"):
        assert key_id in mine.decode()


def test_raw_keys_are_bytes_and_files_are_private(network, tmp_path):
    _, mine, theirs = pair(network, "raw", tmp_path, size=1024)
    assert mine == theirs and len(mine) == 128
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir() if ".new" in p.name] == []


def test_keys_go_to_standard_output_and_ids_to_standard_error(network):
    done = get(network, "alice", "--slave", "sae-bob", "--number", "3", "--format", "hex")
    assert done.returncode == 0 and len(done.stdout.split()) == 3 and len(done.stderr.split()) == 3
    again = get(network, "bob", "--master", "sae-alice", "--format", "hex",
                *(x for i in done.stderr.decode().split() for x in ("--id", i)))
    assert again.stdout == done.stdout


def test_a_key_is_had_once_and_by_its_slave_alone(network):
    done = get(network, "alice", "--slave", "sae-bob")
    key_id = done.stderr.decode().strip()
    stranger = get(network, "erin", "--master", "sae-alice", "--id", key_id)
    assert (stranger.returncode, stranger.stdout) == (3, b"")
    assert get(network, "bob", "--master", "sae-alice", "--id", key_id).stdout == done.stdout
    gone = get(network, "bob", "--master", "sae-alice", "--id", key_id)
    assert (gone.returncode, gone.stdout) == (1, b"")
    assert b"one or more keys specified are not found on KME" in gone.stderr


def test_who_is_not_let_in_is_told_so(network):
    for certificate in ("expired", "revoked", "foreign"):
        done = get(network, "alice", "--slave", "sae-bob", certificate=certificate)
        assert done.returncode in (1, 5) and done.stdout == b"" and done.stderr
    denied = get(network, "mallory", "--slave", "sae-alice")
    assert denied.returncode == 3 and denied.stdout == b""


def test_an_unreachable_key_manager(network):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{probe.getsockname()[1]}"  # nobody listens there, and nobody else can
        assert get(network, "alice", "--slave", "sae-bob", url=url).returncode == 5
    assert get(network, "alice", "--slave", "sae-bob", url="http://127.0.0.1:1").returncode == 1


@pytest.mark.parametrize("arguments", [
    (), ("--slave", "sae-bob", "--master", "sae-bob"), ("--master", "sae-bob"), ("--slave", "sae-bob", "--format", "x"),
    ("--slave", "sae-bob", "--size", "-8"), ("--slave", "sae-bob", "--number", "0"), ("--slave", "sae-bob", "rest"),
    ("--slave", "sae-bob", "--format", "raw", "--number", "2"),
    ("--slave", "sae-bob", "--format", "wireguard", "--size", "128")])
def test_wrong_arguments_get_no_key(network, arguments):
    before = network.stock("alice", "bob")
    done = get(network, "alice", *arguments)
    assert done.returncode == 2 and done.stdout == b"" and done.stderr.startswith(b"qkdgate-get: ")
    assert network.stock("alice", "bob") >= before


def test_a_file_that_cannot_be_written_is_named(network, tmp_path):
    done = get(network, "alice", "--slave", "sae-bob", "--output", tmp_path / "none" / "key")
    assert done.returncode == 1 and b"none/key: No such file" in done.stderr and done.stdout == b""


def test_status(network):
    done = get(network, "alice", "--slave", "sae-bob", "--status")
    assert done.returncode == 0 and re.search(rb"^stored_key_count [1-9]\d*$", done.stdout, re.M)


def test_tls_between_two_programs_keyed_by_the_gateway(network, tmp_path):
    """openssl s_server and s_client with an external PSK, as docs/integrations.md has it."""
    pair(network, "openssl", tmp_path)
    port = Ports().take()
    server = subprocess.Popen(["openssl", "s_server", "-accept", f"{LOOPBACK}:{port}", "-nocert", "-tls1_3", "-quiet",
                               "-rev", *(tmp_path / "mine").read_text().split()], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def said(options):
            time.sleep(0.2)
            return subprocess.run(["openssl", "s_client", "-connect", f"{LOOPBACK}:{port}", "-tls1_3", "-quiet",
                                   "-no_ign_eof", *options], input=b"hello\n", capture_output=True, timeout=120).stdout
        wait_for("the echo", lambda: b"olleh" in said((tmp_path / "theirs").read_text().split()), 30)
        wrong = (tmp_path / "theirs").read_text().split()
        wrong[3] = wrong[3][::-1]
        assert b"olleh" not in said(wrong)
    finally:
        server.kill()
        server.wait()


def test_the_example_builds_against_the_installed_library(network, tmp_path):
    """make install, pkg-config, and a program of somebody else's, over both interfaces."""
    root = tmp_path / "root"
    subprocess.run(["make", "-s", f"BUILD={build_folder()}", f"DESTDIR={root}", "PREFIX=/usr", "install"],
                   cwd=PROJECT, check=True, capture_output=True, timeout=300)
    environment = {"PATH": "/usr/bin:/bin", "PKG_CONFIG_PATH": str(next(root.rglob("libqkdgate.pc")).parent),
                   "PKG_CONFIG_SYSROOT_DIR": str(root)}
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libqkdgate"], env=environment, check=True,
                           capture_output=True, text=True).stdout.split()
    program = tmp_path / "get_key"
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-o", program, PROJECT / "docs/examples/get_key.c", *flags],
                   check=True, timeout=300)
    library = next(root.rglob("libqkdgate.so.0")).parent
    pki = network.pki
    done = subprocess.run(
        [program, network.url("kme-a"), network.url("kme-b"), pki / "ca.pem", pki / "alice.pem", pki / "alice.key",
         "sae-alice", pki / "bob.pem", pki / "bob.key", "sae-bob"],
        env={"LD_LIBRARY_PATH": str(library)}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 and "the same key at both ends" in done.stdout, done.stdout + done.stderr
    names = subprocess.run(["nm", "-D", "--defined-only", library / "libqkdgate.so.0"], check=True,
                           capture_output=True, text=True).stdout
    exported = {line.split()[-1].split("@")[0] for line in names.splitlines() if " T " in line}
    assert exported and all(n.startswith("qg_client_") or n == "qg_err_text" for n in exported)
