#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Sends what the descriptions in openapi/ say, and what they do not, to running gateways, with schemathesis
(PyPI, in a virtual environment below the build folder). usage: run.py SECONDS [DESCRIPTION...]

All checks are on. Where an answer of 400 to data that fit the schema is right, the operation stands in
REFUSES with the reason. The last line is "N passed, N failed"."""

import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "demo"))

from network import Network, build_folder  # noqa: E402
from topology import operators  # noqa: E402

SCHEMATHESIS = "schemathesis==4.32.5"
FOLDER = build_folder() / "openapi"

# Of each description: the node and listener, the certificate, and what stands in its paths.
DESCRIPTIONS = {
    "etsi014": ("kme-a", "sae", "alice", {"slave_SAE_ID": "sae-zoe", "master_SAE_ID": "sae-zoe"}),
    "kms": ("kme-a", "kms", "kme-g1", {}),
    "etsi020": ("kme-g1", "kxi", "kme-peer", {}),
    "admin": ("kme-a", "admin", "admin",
              {"stream": "a-to-g1", "SAE_ID": "sae-alice", "other_SAE_ID": "sae-zoe", "file": "main.js"}),
}

# A reason, and the operations whose well-formed requests may be refused with 400 for it.
REFUSES = {
    "etsi014": (
        ("the limits of sizes and numbers are those of the configuration; Status tells them",
         ("/api/v1/keys/{slave_SAE_ID}/enc_keys",)),
        ("ETSI GS QKD 014 has 400 for keys that are not there, and no request can know one",
         ("/api/v1/keys/{master_SAE_ID}/dec_keys",))),
    "kms": (
        ("members fit one another, which a schema cannot say: sums of chunks, paths of neighbours, one entry for each link",
         ("/api/v1/kms/forward_keys", "/api/v1/kms/make_keys_external", "/api/v1/kms/new_app",
          "/api/v1/kms/new_app_keys", "/api/v1/kms/new_app_stream", "/api/v1/kms/new_key_batch",
          "/api/v1/kms/post_status")),
        ("whole numbers are digits alone, 1.0 is none: only gateways like this one speak here",
         ("/api/v1/kms/app_stream_closed", "/api/v1/kms/delete_keys", "/api/v1/kms/get_status",
          "/api/v1/kms/key_stream_closed", "/api/v1/kms/want_app_keys"))),
    "etsi020": (
        ("no target is the initiator, which a schema cannot say",
         ("/kmapi/v1/ext_keys", "/kmapi/v1/ext_keys/ack", "/kmapi/v1/ext_keys/void",
          "/kmapi/v1/ext_keys/{initiator_SAE_ID}/{target_SAE_ID}")),),
    "admin": (
        ("only the name of this gateway is right, so that none destroys another", ("/api/v1/zeroize",)),
        ("what is told at run time is looked at like the configuration file, which a schema cannot say",
         ("/api/v1/saes", "/api/v1/rules")),
        ("`default` is the level of a module, and only where one is given", ("/api/v1/logs",)),
        ("the first day is not after the last, nor ten years before it", ("/api/v1/accounting",)),
        ("the file named has to hold a key", ("/api/v1/master-key/rotate",))),
}

# The standards answer 503 where there is no key or no way to a target now. 500 is never right.
SERVER_ERRORS = "not_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", 503]"

# The longest lists of the descriptions: a larger body ends the connection before all of it is sent.
BODY_BYTES = 16 * 1024 * 1024

# It ends the gateway, and all that follows with it: tests/e2e/test_acts.py.
LEFT_OUT = {"admin": ("/api/v1/drain",)}


def schemathesis():
    program = FOLDER / "venv" / "bin" / "schemathesis"
    version = SCHEMATHESIS.split("==")[1]
    if program.exists() and version in subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout:
        return program
    shutil.rmtree(FOLDER / "venv", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", FOLDER / "venv"], check=True)
    subprocess.run([FOLDER / "venv" / "bin" / "python", "-m", "pip", "install", "-q", SCHEMATHESIS], check=True)
    return program


def settings(name):
    """The configuration file of schemathesis, in a folder of its own."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = ["[checks]", SERVER_ERRORS, "", "[parameters]", *(f'"{k}" = "{v}"' for k, v in DESCRIPTIONS[name][3].items())]
    for reason, paths in REFUSES[name]:
        for path in paths:
            lines += ["", f"# {reason}", "[[operations]]", f'include-path = "{path}"',
                      'checks.positive_data_acceptance.expected-statuses = [200, 202, 400, 401, 403, 404, 409, 503]']
    (folder / "schemathesis.toml").write_text("\n".join(lines) + "\n")
    return folder


def send(program, network, name, seconds, seed):
    node, listener, certificate, _ = DESCRIPTIONS[name]
    host, port = network.endpoints[f"{node}/{listener}"]
    pki = network.pki
    command = [program, "run", PROJECT / "openapi" / f"{name}.yaml", "--url", f"https://{host}:{port}",
               "--tls-verify", pki / "ca.pem", "--request-cert", pki / f"{certificate}.pem",
               "--request-cert-key", pki / f"{certificate}.key", "--request-timeout", "60",
               "--max-time", str(seconds), "--seed", str(seed), "--checks", "all", "--continue-on-failure",
               "--no-color", "--report", "ndjson", "--report-dir", "reports",
               *(argument for path in LEFT_OUT.get(name, ()) for argument in ("--exclude-path", path))]
    done = subprocess.run([str(c) for c in command], cwd=settings(name), capture_output=True, text=True, check=False)
    found = re.search(r"(\d+) generated", done.stdout)
    good = done.returncode == 0 and found is not None
    if not good:
        print(done.stdout[-20000:], done.stderr[-2000:], sep="\n")
    print(f"{'ok    ' if good else 'FAILED'} {name}: {found.group(1) if found else 0} requests, seed {seed}", flush=True)
    return good


def main():
    seconds = int(sys.argv[1])
    names = sys.argv[2:] or list(DESCRIPTIONS)
    seed = int(os.environ.get("QG_TEST_SEED", random.randrange(1 << 32)))
    program = schemathesis()
    shutil.rmtree(FOLDER / "network", ignore_errors=True)
    network = Network(operators(), FOLDER / "network", admin=True, tweak=lambda _, config: config.setdefault(
        "limits", {}).update(body_bytes=BODY_BYTES, kxi_body_bytes=BODY_BYTES))
    network.prepare()
    network.start()
    results = []
    try:
        network.wait_foreign("alice", "zoe")
        results += [send(program, network, name, seconds, seed) for name in names]
        results.append(all(gateway.pid is not None for gateway in network.gateways.values()))
        print(f"{'ok    ' if results[-1] else 'FAILED'} all gateways run")
    finally:
        orderly = network.stop()
    results.append(all(orderly.values()))
    print(f"{'ok    ' if results[-1] else 'FAILED'} all gateways end in order")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
