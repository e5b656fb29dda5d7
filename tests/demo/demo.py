#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: demo.py up | down | restart NAME.

up       starts the topology ($TOPOLOGY, default pair) under build/demo, waits for keys, shows what
         there is to see in it with curl and leaves everything running
down     stops whatever runs
restart  starts one process again on its old state (after a kill, or stops it first)
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # leave no __pycache__ behind

from network import Network, PROJECT, binary, build_folder, complain, saved_processes
from processes import PATIENCE, ProcessFailed, wait_for
from topology import ACK_PATH, TOPOLOGIES, short

FOLDER = build_folder() / "demo"
FIRST_PORT = 18101
PASSWORDS = "admin.passwords"
SEGMENT = 256  # keys that were relayed together, maybe over several ways


def down():
    """Stops gateways before links; tells what it stopped."""
    stopped = []
    for process in reversed(list(saved_processes(FOLDER).values())):
        if process.pid is not None:
            process.stop()
            stopped.append(process.name)
        process.pid_file.unlink(missing_ok=True)
    return stopped


def url_name(node):
    return f"{node.id.replace('-', '_')}_URL"


def make_account():
    """One for the dashboards of all gateways: its password."""
    password = secrets.token_urlsafe(9)
    line = subprocess.run([binary("qkdgatectl"), "hash-password", "admin"], input=password, capture_output=True,
                          text=True, timeout=120, check=True).stdout
    file = FOLDER / PASSWORDS
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(line)
    return password


def let_in(_, config):
    config["admin"]["passwords"] = {"file": PASSWORDS}


def tell_dashboards(network, password):
    first, *others = network.topology.nodes
    print(f"\nDashboard of {first.id}: {network.admin_url(first.name)}/ (user admin, password {password}; the browser "
          f"does not know the demo's authority, {relative(FOLDER / 'pki' / 'ca.pem')})")
    if others:
        print("Of the others: " + ", ".join(f"{n.id} {network.admin_url(n.name)}/" for n in others))


def write_env(network, password):
    """build/demo/env: literal NAME=value lines for shells and scripts."""
    lines = [f"CA={network.pki / 'ca.pem'}", f"ADMIN_CERT={network.pki / 'admin.pem'}",
             f"ADMIN_KEY={network.pki / 'admin.key'}", f"ADMIN_PASSWORD={password}"]
    for node in network.topology.nodes:
        lines.append(f"{url_name(node)}={network.url(node.name)}")
        lines.append(f"{url_name(node).removesuffix('_URL')}_ADMIN_URL={network.admin_url(node.name)}")
        lines.append(f"{url_name(node).removesuffix('_URL')}_ADMIN_SOCKET={network.admin_socket(node.name)}")
        host, port = network.endpoints[f"{node.name}/app"]
        lines.append(f"{node.id.replace('-', '_')}_004={host}:{port}")
        if node.saes:
            lines.append(f"APP_{node.id.removeprefix('KME-')}_URI={node.saes[0].uri(node)}")
        for sae in node.saes:
            for kind, suffix in (("CERT", "pem"), ("KEY", "key")):
                lines.append(f"{sae.name.upper()}_{kind}={network.pki / f'{sae.name}.{suffix}'}")
    for peering in network.topology.peerings:
        for name in (peering.a, peering.b):
            lines.append(f"KXI_{short(name).upper()}_URL={network.url(name, 'kxi')}")
        for kind, suffix in (("CERT", "pem"), ("KEY", "key")):
            lines.append(f"PEER_{kind}={network.pki / f'{peering.guest}.{suffix}'}")
        lines.append(f"PEER_CALLBACK_URL={network.url(peering.guest, None)}{ACK_PATH}")
    (FOLDER / "env").write_text("\n".join(lines) + "\n")


def curl(network, sae, path):
    """Runs curl as an SAE at its gateway; prints the command as one would paste it, and the answer."""
    pki = FOLDER / "pki"
    node = network.topology.home(sae)
    command = ["curl", "-s", "--cacert", str(pki / "ca.pem"), "--cert", str(pki / f"{sae}.pem"),
               "--key", str(pki / f"{sae}.key"), network.url(node.name) + path]
    name = sae.upper()
    print(f'\n$ curl -s --cacert $CA --cert ${name}_CERT --key ${name}_KEY "${url_name(node)}{path}"')
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    print(done.stdout)
    return json.loads(done.stdout)["keys"][0]


def one_key(network, master, slave):
    """Shows one key at both ends; False when they differ."""
    first = curl(network, master, f"/api/v1/keys/sae-{slave}/enc_keys")
    second = curl(network, slave, f"/api/v1/keys/sae-{master}/dec_keys?key_ID={first['key_ID']}")
    match = first["key"] == second["key"]
    print(f"\n{master} and {slave} {'hold the same key' if match else 'HOLD DIFFERENT KEYS'} "
          f"({first['key_ID']}).")
    return match


def show_pair(network):
    return one_key(network, "alice", "bob")


def show_chain(network):
    """A key over KME-B, one over KME-D while KME-B is stopped, and KME-B again."""
    middle = network.gateways["kme-b"]
    print("\nalice at KME-A and carol at KME-C share no link.")
    if not key_over(network, "KME-B"):
        return False
    print(f"\nStopping kme-b, pid {middle.pid}.")
    middle.stop()
    if not key_over(network, "KME-D"):
        return False
    middle.start()
    middle.wait_ready()
    print(f"\nkme-b runs again, pid {middle.pid}.")
    return True


def show_operators(network):
    """A key each way between the two networks."""
    where = "a link apart" if network.topology.peerings[0].kxi else "side by side"
    print(f"\nalice at KME-A and zoe at KME-Z are of different operators. The borders, KME-G1 and KME-G2, stand {where}.")
    return one_key(network, "alice", "zoe") and one_key(network, "zoe", "alice")


def key_over(network, kme):
    """A key from alice to carol that went over that KME."""
    way, taken = wait_way(network, kme)
    if taken:
        print(f"Keys go over {kme} now; alice took the {taken} in stock from before.")
    if not one_key(network, "alice", "carol"):
        return False
    print(f"The log of kme-a says which way it went: {' - '.join(way)}")
    return True


def ways(network):
    """The ways that keys from alice to carol went, each time that it changed: lists of KME IDs."""
    lines = network.gateways["kme-a"].lines("event=relay_path ", f"stream={network.topology.relays[0].name} ")
    return [re.search(r" path=(\S+)", line).group(1).split(",") for line in lines]


def wait_way(network, kme, timeout_s=30):
    """Until the next key is one that went over that KME: keys are handed out in the order in which they
    were relayed, so that what others were relayed before are taken first. The way, and how many these
    were."""
    taken, end = 0, time.monotonic() + PATIENCE * timeout_s
    with network.client("alice") as alice:
        while True:
            seen = ways(network)
            if kme in seen[-1]:
                before = 0 if len(seen) == 1 else network.stock("alice", "carol") + SEGMENT
                while before > 0:
                    before -= (n := take(alice, min(64, before)))
                    taken += n
                network.wait_stock("alice", "carol", 2 * SEGMENT)  # the last tenth is for who took less
                if len(ways(network)) == len(seen):
                    return seen[-1], taken
            else:
                taken += take(alice)  # makes room for more
            if time.monotonic() >= end:
                raise TimeoutError(f"keys over {kme}: not within {PATIENCE * timeout_s} s")


def take(client, number=64, timeout_s=30):
    """Takes keys for carol: how many."""
    def ask():
        answer = client.enc("sae-carol", number=number)
        return answer.keys() if answer.status == 200 else None
    return len(wait_for("keys for carol", ask, timeout_s, 0.1))


STORIES = {"pair": ((("alice", "bob"),), show_pair),
           "chain": ((("alice", "carol"), ("carol", "bob")), show_chain),
           "operators": ((("alice", "zoe"),), show_operators)}


def up():
    name = os.environ.get("TOPOLOGY") or "pair"
    if name not in TOPOLOGIES:
        complain(f"demo: no topology {name}; there are: {', '.join(TOPOLOGIES)}")
        return 2
    if stopped := down():
        print(f"Stopped {', '.join(stopped)}.")
    keep_pki_only()
    options = {"kxi": True} if name == "operators" and os.environ.get("KXI") == "1" else {}
    network = Network(TOPOLOGIES[name](**options), FOLDER, first_port=FIRST_PORT, admin=True, tweak=let_in)
    password = make_account()
    network.prepare()
    network.save()
    write_env(network, password)
    network.start()
    pairs, show = STORIES[name]
    wait = network.wait_foreign if network.topology.peerings else network.wait_stock
    for one, other in pairs:
        wait(one, other)
        wait(other, one)
    print(f"Running: {', '.join(p.name for p in network.processes())}. "
          f"Shell variables for what follows: . {relative(FOLDER / 'env')}")
    if not show(network):
        return 1
    tell_dashboards(network, password)
    print(f"\nEverything stays running; logs are in {relative(FOLDER / 'log')}. "
          "Stop it with: make demo-down")
    return 0


def keep_pki_only():
    """A new demo begins with empty gateways; only the certificates are kept."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for entry in FOLDER.iterdir():
        if entry.name == "pki":
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def relative(path):
    return path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path


def restart(name):
    processes = saved_processes(FOLDER)
    if name not in processes:
        complain(f"demo: no process {name}; there are: {', '.join(processes) or 'none'}")
        return 2
    process = processes[name]
    if process.pid is not None:
        process.stop()
    process.start()
    process.wait_ready()
    print(f"{name} runs again, pid {process.pid}.")
    return 0


def main(arguments):
    if arguments == ["up"]:
        return up()
    if arguments == ["down"]:
        print(f"Stopped {', '.join(down()) or 'nothing: nothing ran'}.")
        return 0
    if len(arguments) == 2 and arguments[0] == "restart" and arguments[1]:
        return restart(arguments[1])
    complain("usage: make demo [TOPOLOGY=chain] | make demo-down | make demo-restart NAME=kme-b")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ProcessFailed, TimeoutError, OSError, subprocess.SubprocessError) as error:
        complain(f"demo: {error}")
        sys.exit(1)
