#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: demo.py up | down | restart NAME.

up       starts the topology ($TOPOLOGY, default pair) under build/demo, waits for keys, fetches
         one at both ends with curl and leaves everything running
down     stops whatever runs
restart  starts one process again on its old state (after a kill, or stops it first)
"""

import json
import os
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True  # leave no __pycache__ behind

from network import Network, PROJECT, build_folder, complain, make_pki, saved_processes
from processes import ProcessFailed
from topology import TOPOLOGIES

FOLDER = build_folder() / "demo"
FIRST_PORT = 18101


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


def write_env(network):
    """build/demo/env: literal NAME=value lines for shells and scripts."""
    lines = [f"CA={network.pki / 'ca.pem'}"]
    for node in network.topology.nodes:
        lines.append(f"{url_name(node)}={network.url(node.name)}")
        for sae in node.saes:
            for kind, suffix in (("CERT", "pem"), ("KEY", "key")):
                lines.append(f"{sae.name.upper()}_{kind}={network.pki / f'{sae.name}.{suffix}'}")
    (FOLDER / "env").write_text("\n".join(lines) + "\n")


def curl(network, sae, path):
    """Runs curl as an SAE at its gateway; prints the command as one would paste it, and the answer."""
    pki = FOLDER / "pki"
    node = network.topology.home(sae)
    command = ["curl", "-s", "--cacert", str(pki / "ca.pem"), "--cert", str(pki / f"{sae}.pem"),
               "--key", str(pki / f"{sae}.key"), network.url(node.name) + path]
    name = sae.upper()
    print(f'\n$ curl -s --cacert $CA --cert ${name}_CERT --key ${name}_KEY "${url_name(node)}{path}"')
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    print(done.stdout)
    return json.loads(done.stdout)["keys"][0]


def show(network, master, slave):
    """One key at both ends; False when they differ."""
    first = curl(network, master, f"/api/v1/keys/sae-{slave}/enc_keys")
    second = curl(network, slave, f"/api/v1/keys/sae-{master}/dec_keys?key_ID={first['key_ID']}")
    match = first["key"] == second["key"]
    print(f"\n{master} and {slave} {'hold the same key' if match else 'HOLD DIFFERENT KEYS'} "
          f"({first['key_ID']}).")
    return match


def up():
    name = os.environ.get("TOPOLOGY") or "pair"
    if name not in TOPOLOGIES:
        complain(f"demo: no topology {name}; there are: {', '.join(TOPOLOGIES)}")
        return 2
    if stopped := down():
        print(f"Stopped {', '.join(stopped)}.")
    keep_pki_only()
    make_pki(FOLDER / "pki")
    network = Network(TOPOLOGIES[name](), FOLDER, first_port=FIRST_PORT)
    network.prepare()
    network.save()
    write_env(network)
    network.start()
    network.wait_stock("alice", "bob")
    network.wait_stock("bob", "alice")
    print(f"Running: {', '.join(p.name for p in network.processes())}. "
          f"Shell variables for what follows: . {relative(FOLDER / 'env')}")
    if not show(network, "alice", "bob"):
        return 1
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
    complain("usage: make demo | make demo-down | make demo-restart NAME=kme-b")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ProcessFailed, TimeoutError, OSError, subprocess.SubprocessError) as error:
        complain(f"demo: {error}")
        sys.exit(1)
