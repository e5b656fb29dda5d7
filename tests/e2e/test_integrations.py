# SPDX-License-Identifier: Apache-2.0
"""Other programs keyed by what qkdgate-get writes, as docs/integrations.md has it: strongSwan in two network
namespaces, and wg, of which the tests play the interface."""

import base64
import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import textwrap
import threading
from pathlib import Path

import pytest

import netns
from processes import wait_for
from test_client import get, pair

CHARON = Path("/usr/lib/ipsec/charon")
LIBIPSEC = Path("/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so")
PLUGINS = "random nonce openssl aes sha1 sha2 hmac kdf gmp curve25519 socket-default vici"
OUTER = {"a": "10.66.0.1", "b": "10.66.0.2"}
INNER = {"a": "10.77.1.1", "b": "10.77.2.1"}


def why_not(*needed):
    missing = [str(tool) for tool in needed if not shutil.which(tool) and not Path(tool).exists()]
    if missing:
        return f"no {', '.join(missing)} here"
    return netns.why_not()


NO_STRONGSWAN = why_not(CHARON, LIBIPSEC, "swanctl", "/dev/net/tun")
NO_WG = why_not("wg")


# --- strongSwan ------------------------------------------------------------------------------------------------

class Swan:
    """One charon in a namespace of its own, with its own /run."""

    def __init__(self, space, side, folder):
        self.side, self.folder, self.space = side, folder / side, f"{space}-{side}"
        self.folder.mkdir()
        self.ppk = self.folder / "ppk.conf"
        self._process = None

    def write(self, key_id, required=True):
        other = "b" if self.side == "a" else "a"
        (self.folder / "strongswan.conf").write_text(textwrap.dedent(f"""\
            charon {{
              load = kernel-libipsec kernel-netlink {PLUGINS}
              plugins {{
                vici {{
                  socket = unix://{self.folder}/vici
                }}
              }}
            }}
            """))
        (self.folder / "swanctl.conf").write_text(textwrap.dedent(f"""\
            connections {{
              qkd {{
                version = 2
                local_addrs = {OUTER[self.side]}
                remote_addrs = {OUTER[other]}
                proposals = aes256-sha256-x25519
                ppk_id = {key_id}
                ppk_required = {"yes" if required else "no"}
                local {{
                  auth = psk
                  id = {self.side}
                }}
                remote {{
                  auth = psk
                }}
                children {{
                  net {{
                    local_ts = {INNER[self.side]}/32
                    remote_ts = {INNER[other]}/32
                    esp_proposals = aes256-sha256
                  }}
                }}
              }}
            }}
            secrets {{
              ike-1 {{
                secret = not-the-one-that-matters
              }}
            }}
            include {self.ppk}
            """))

    def start(self):
        command = ["ip", "netns", "exec", self.space, "unshare", "-m", "sh", "-c",
                   'mount -t tmpfs tmpfs /run && exec "$0"', str(CHARON)]
        with (self.folder / "log").open("wb") as log:
            environment = {**os.environ, "STRONGSWAN_CONF": str(self.folder / "strongswan.conf")}
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                             env=environment)
        wait_for("charon", (self.folder / "vici").exists, 60)

    def ctl(self, *arguments):
        done = subprocess.run(["swanctl", *arguments, "--uri", f"unix://{self.folder}/vici"], capture_output=True,
                              text=True, timeout=120)
        return done.returncode, done.stdout

    def load(self):
        """The file that qkdgate-get wrote is among the credentials."""
        for what in ("--load-creds", "--load-conns"):
            status, said = self.ctl(what, "--file", str(self.folder / "swanctl.conf"))
            assert status == 0, said
            assert what != "--load-creds" or "loaded ppk secret" in said, said

    def stop(self):
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@pytest.fixture
def swans(tmp_path):
    """Two, joined by a cable; each has an address that is reached through a tunnel alone."""
    space = f"qg{os.getpid()}-{secrets.token_hex(2)}"
    made = {side: Swan(space, side, tmp_path) for side in "ab"}
    names = [s.space for s in made.values()]
    try:
        for name in names:
            netns.ip("netns", "add", name)
        netns.ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for side, swan in made.items():
            netns.ip("-n", swan.space, batch=f"link set lo up\nlink set cable up\naddr add {OUTER[side]}/24 dev cable\n"
                     f"addr add {INNER[side]}/32 dev lo\n")
        yield made["a"], made["b"]
    finally:
        for swan in made.values():
            swan.stop()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.skipif(NO_STRONGSWAN is not None, reason=f"strongSwan cannot be run: {NO_STRONGSWAN}")
def test_ikev2_with_a_post_quantum_preshared_key_of_the_gateway(network, swans, tmp_path):
    key_id, _, _ = pair(network, "strongswan", tmp_path)
    a, b = swans
    for swan, name in ((a, "mine"), (b, "theirs")):
        shutil.copy(tmp_path / name, swan.ppk)
        swan.write(key_id)
        swan.start()
        swan.load()
    status, said = a.ctl("--initiate", "--child", "net")
    assert status == 0 and f"using PPK for PPK_ID '{key_id}'" in said, said
    for swan in swans:
        _, said = swan.ctl("--list-sas")
        assert re.search(r"qkd: #\d+, ESTABLISHED.*\n(.*\n)*\s+\S*CURVE_25519/PPK\n", said), said
        assert "INSTALLED, TUNNEL" in said, said
    assert through(a, b, b"a word") == b"a word"
    # Another key of the same name: no IKE_SA.
    assert a.ctl("--terminate", "--ike", "qkd")[0] == 0
    wrong = b.ppk.read_text()
    last = re.search(r"0x[0-9a-f]+([0-9a-f])", wrong)
    b.ppk.write_text(wrong[:last.start(1)] + ("0" if last[1] != "0" else "1") + wrong[last.end(1):])
    b.load()
    status, said = a.ctl("--initiate", "--child", "net")
    assert status != 0 and "ESTABLISHED" not in a.ctl("--list-sas")[1] and "AUTH_FAILED" in said, said


def through(a, b, data):
    """What arrives at b's inner address of what is sent from a's."""
    with netns.inside(b.space):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with netns.inside(a.space):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind((INNER["b"], 9999))
        client.bind((INNER["a"], 0))
        server.settimeout(1)

        def once():
            client.sendto(data, (INNER["b"], 9999))
            try:
                return server.recv(100)
            except TimeoutError:
                return None
        return wait_for("a datagram through the tunnel", once, 60)


# --- WireGuard -----------------------------------------------------------------------------------------------------

class Interface:
    """What wg talks to for an interface of a WireGuard in user space: keeps what it is told to set."""

    def __init__(self, path):
        self.set = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):  # it also looks whether anybody is there
                text = b""
                while not text.endswith(b"\n\n"):
                    more = connection.recv(4096)
                    if not more:
                        break
                    text += more
                self.set.update(line.split("=", 1) for line in text.decode().split())
                connection.sendall(b"errno=0\n\n")


@pytest.mark.skipif(NO_WG is not None, reason=f"wg cannot be run: {NO_WG}")
def test_wg_takes_the_preshared_key(network, tmp_path):
    _, mine, theirs = pair(network, "wireguard", tmp_path)
    assert mine == theirs
    interface = Interface(tmp_path / "wg.sock")
    peer = base64.b64encode(secrets.token_bytes(32)).decode()

    def wg_set(file):
        return subprocess.run(["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /run && mkdir -p /run/wireguard && "
                               f"ln -s {tmp_path}/wg.sock /run/wireguard/wg0.sock && exec \"$0\" \"$@\"",
                               "wg", "set", "wg0", "peer", peer, "preshared-key", str(file)], capture_output=True,
                              text=True, timeout=60)
    done = wg_set(tmp_path / "mine")
    assert done.returncode == 0, done.stderr
    assert interface.set["set"] == "1" and interface.set["public_key"] == base64.b64decode(peer).hex()
    assert bytes.fromhex(interface.set["preshared_key"]) == base64.b64decode(mine)
    # A key of another form is none.
    interface.set.clear()
    hexadecimal = tmp_path / "hex"
    assert get(network, "alice", "--slave", "sae-bob", "--format", "hex", "--output", hexadecimal).returncode == 0
    refused = wg_set(hexadecimal)
    assert refused.returncode != 0 and "preshared_key" not in interface.set
