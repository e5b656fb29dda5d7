# SPDX-License-Identifier: Apache-2.0
"""What is in the images, and that it is the same each time they are built."""

import hashlib
import json
import re
import shutil
import subprocess
import tarfile

import pytest

from engine import PROJECT, TAG, USER, docker, files_of, inspect, run

PRODUCTION = f"qkdgate:{TAG}"
SIMULATION = f"qkdgate-sim:{TAG}"
MIB = 1 << 20
PROGRAMS = {"usr/bin/qkdgate", "usr/bin/qkdgatectl"}
GNUTLS = re.compile(r"/libgnutls\.so\.[^/]+$|/bin/gnutls-cli$")  # hold keys that they test themselves with
SBOM = "usr/share/doc/qkdgate/sbom.spdx.json"


@pytest.fixture(scope="module")
def production():
    return files_of(PRODUCTION)


def elf_files(files):
    return {name for name, (_, data) in files.items() if data.startswith(b"\x7fELF")}


def test_production_holds_the_gateway_and_its_libraries_only(production):
    programs = {name for name, (entry, _) in production.items() if entry.isreg() and entry.mode & 0o111}
    programs |= elf_files(production)
    programs = {name for name in programs if not re.search(r"\.so[.0-9]*$", name)}
    assert programs == PROGRAMS
    assert not [name for name, (entry, _) in production.items() if entry.mode & 0o6000]
    assert not [name for name, (entry, _) in production.items()
                if entry.isreg() and entry.mode & 0o022 or entry.isreg() and entry.uid != 0]


def test_production_holds_no_simulator(production):
    mark = b"SIMULATION, NOT FOR PRODUCTION"
    assert mark in files_of(SIMULATION)["usr/local/bin/qkdgate-sim"][1]
    assert [name for name, (_, data) in production.items() if mark in data or b"qkdgate-sim" in data] == []


def test_production_is_small():
    assert inspect(PRODUCTION)["Size"] < 60 * MIB


def test_settings_of_the_images():
    version = re.search(r'QG_VERSION "(.*)"', (PROJECT / "include/qkdgate/version.h").read_text()).group(1)
    for image, title in ((PRODUCTION, "qkdgate"), (SIMULATION, "qkdgate-sim")):
        config = inspect(image)["Config"]
        labels = {k.removeprefix("org.opencontainers.image."): v for k, v in config["Labels"].items()}
        assert config["User"] == f"{USER}:{USER}"
        assert (labels["title"], labels["version"], labels["licenses"]) == (title, version, "Apache-2.0")
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
    config = inspect(PRODUCTION)["Config"]
    assert config["Entrypoint"] == ["/usr/bin/qkdgate"]
    assert config["Cmd"] == ["run", "/etc/qkdgate/qkdgate.yaml"]
    assert config["Healthcheck"]["Test"] == ["CMD", "/usr/bin/qkdgatectl", "health"]
    assert not [e for e in config["Env"] or () if not e.startswith("PATH=")]
    said = docker("run", "--rm", "--read-only", "--cap-drop", "ALL", PRODUCTION, "--version").stdout
    assert said == f"qkdgate {version}\n"


def test_no_private_key_in_any_layer(tmp_path):
    """Not in what a later layer hides either. The libraries know the words, so the key's text counts."""
    key = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/]{32}")
    assert key.search(b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n")
    found, seen = [], 0
    for image in (PRODUCTION, SIMULATION):
        saved = tmp_path / "image.tar"
        docker("save", "-o", saved, image)
        with tarfile.open(saved) as outer:
            layers = [m for m in outer if m.name.endswith(("/layer.tar", ".tar")) or m.name.startswith("blobs/")]
            for layer in layers:
                try:
                    inner = tarfile.open(fileobj=outer.extractfile(layer))
                except tarfile.ReadError:
                    continue
                for entry in inner:
                    seen += 1
                    if not entry.isreg() or GNUTLS.search(entry.name):
                        continue
                    if key.search(inner.extractfile(entry).read()) or entry.name.endswith(".key"):
                        found.append(entry.name)
    assert found == [] and seen > 1000


def test_bill_of_materials(production):
    bill = json.loads(production[SBOM][1])
    assert (bill["spdxVersion"], bill["dataLicense"], bill["SPDXID"]) == ("SPDX-2.3", "CC0-1.0", "SPDXRef-DOCUMENT")
    assert re.fullmatch(r"https://spdx\.org/spdxdocs/qkdgate-[^#]+", bill["documentNamespace"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", bill["creationInfo"]["created"])
    packages = {p["SPDXID"]: p for p in bill["packages"]}
    assert len(packages) == len(bill["packages"])
    for ident, package in packages.items():
        assert re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", ident)
        assert package["name"] and package["versionInfo"] and package["filesAnalyzed"] is False
        for member in ("downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText", "supplier"):
            assert package[member], (ident, member)
    ours = packages.pop("SPDXRef-qkdgate")
    assert ours["checksums"] == [{"algorithm": "SHA256",
                                  "checksumValue": hashlib.sha256(production["usr/bin/qkdgate"][1]).hexdigest()}]
    ends = {(r["spdxElementId"], r["relationshipType"], r["relatedSpdxElement"]) for r in bill["relationships"]}
    assert ends == {("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-qkdgate")} | \
        {("SPDXRef-qkdgate", "DYNAMIC_LINK", ident) for ident in packages}
    # What it names is what is in the image, in the version of the package database there.
    installed = {}
    for name, (entry, data) in production.items():
        if name.startswith("var/lib/dpkg/status.d/") and entry.isreg():
            fields = dict(re.findall(r"^([A-Z][A-Za-z-]+): (.*)$", data.decode(), re.M))
            installed[fields["Package"]] = fields["Version"]
            assert f"usr/share/doc/{fields['Package']}/copyright" in production
    assert {p["name"]: p["versionInfo"] for p in packages.values()} == installed
    libraries = {name for name in elf_files(production) if name not in PROGRAMS}
    assert len(libraries) >= len(installed) > 10 and {"libc6", "libgnutls30t64", "libsqlite3-0"} <= set(installed)


def test_the_same_files_from_a_clean_clone(production, tmp_path):
    """Another folder, owner, time and umask; nothing of the first build's compiler output is used."""
    names = subprocess.run(["git", "-C", PROJECT, "ls-files", "-z"], capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        if (PROJECT / name).is_file():
            target = tmp_path / "clone" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target)
    (tmp_path / "clone" / "src" / "app" / ".again").write_text("so that the compiler runs\n")
    run("docker", "build", "-q", "-f", tmp_path / "clone/docker/Dockerfile", "-t", "qkdgate:again",
        *[w for label in ("version", "revision") for w in (
            "--build-arg", f"{label.upper()}={inspect(PRODUCTION)['Config']['Labels'][f'org.opencontainers.image.{label}']}")],
        "--build-arg", f"SOURCE_DATE_EPOCH={created_epoch(production)}", tmp_path / "clone")
    try:
        again = files_of("qkdgate:again")
    finally:
        docker("rmi", "-f", "qkdgate:again")
    assert {n: hashlib.sha256(d).hexdigest() for n, (_, d) in again.items()} == \
        {n: hashlib.sha256(d).hexdigest() for n, (_, d) in production.items()}


def created_epoch(production):
    created = json.loads(production[SBOM][1])["creationInfo"]["created"]
    return run("date", "-u", "-d", created, "+%s").stdout.strip()
