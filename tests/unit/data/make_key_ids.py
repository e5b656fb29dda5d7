#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Key IDs of docs/key-ids.md, a second implementation that shares nothing with
src/core/key_id.c. Writes the test vectors key_ids.json beside this file; with
--check compares instead and opens every ID again."""

import hashlib
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("key_ids.json")
M64 = 2**64 - 1


def siphash24(key: bytes, data: bytes) -> int:
    """SipHash-2-4 of Aumasson and Bernstein as a 64-bit number."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotl(x, n):
        return (x << n | x >> (64 - n)) & M64

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & M64
            v[2] = (v[2] + v[3]) & M64
            v[1] = rotl(v[1], 13) ^ v[0]
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[1]) & M64
            v[0] = (v[0] + v[3]) & M64
            v[1] = rotl(v[1], 17) ^ v[2]
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = rotl(v[2], 32)

    whole = len(data) // 8 * 8
    words = [int.from_bytes(data[i:i + 8], "little") for i in range(0, whole, 8)]
    words.append(int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    for m in words:
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def blake2b(key: bytes, data: bytes, size: int = 32) -> bytes:
    return hashlib.blake2b(data, digest_size=size, key=key).digest()


def text(s: str) -> bytes:
    raw = s.encode()
    return len(raw).to_bytes(4, "big") + raw


class Direction:
    def __init__(self, root: bytes, owner: str, far_end: str, ksid: bytes, epoch: bytes):
        self.fields = (root, owner, far_end, ksid, epoch)
        key = root if len(root) == 64 else blake2b(b"", root, 64)
        bound = text(owner) + text(far_end) + ksid + epoch
        self.issue = blake2b(key, text("qkdgate key-id v1 issue") + bound)[:16]
        self.position = blake2b(key, text("qkdgate key-id v1 position") + bound)[:16]
        self.pair = blake2b(key, text("qkdgate key-id v1 pair") + bound)

    def pair_key(self, master: str, slave: str) -> bytes:
        return blake2b(self.pair, text(master) + text(slave))[:16]

    def keystream(self, issue: int, pair: int) -> int:
        return siphash24(self.position, issue.to_bytes(4, "big") + pair.to_bytes(6, "big")) % 2**44

    def make(self, pair_key: bytes, index: int, size: int) -> str:
        position = index << 12 | size
        message = position.to_bytes(8, "big")
        issue = siphash24(self.issue, message) % 2**30
        pair = siphash24(pair_key, message) % 2**48
        hidden = position ^ self.keystream(issue, pair)
        free = format(hidden, "044b") + format(issue, "030b") + format(pair, "048b")
        bits = free[:48] + "1000" + free[48:60] + "10" + free[60:]
        h = format(int(bits, 2), "032x")
        return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))

    def open(self, pair_key: bytes, uuid: str):
        bits = format(int(uuid.replace("-", ""), 16), "0128b")
        if bits[48:52] != "1000" or bits[64:66] != "10":
            return None
        free = bits[:48] + bits[52:64] + bits[66:]
        hidden, issue, pair = int(free[:44], 2), int(free[44:74], 2), int(free[74:], 2)
        position = hidden ^ self.keystream(issue, pair)
        message = position.to_bytes(8, "big")
        if siphash24(self.issue, message) % 2**30 != issue or position % 2**12 == 0:
            return None
        return position >> 12, position % 2**12, siphash24(pair_key, message) % 2**48 == pair


def ksid(n: int) -> bytes:
    raw = bytearray(blake2b(b"", b"test ksid %d" % n, 16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    return bytes(raw)


def uuid_text(raw: bytes) -> str:
    h = raw.hex()
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


POSITIONS = ((0, 32), (2, 32), (1, 1), (255, 4095), (256, 16), (65536, 64), (0x7FFFFFFF, 1024), (0xFFFFFFFF, 4095))
PAIRS = (("sae-alice", "sae-bob"), ("sae-bob", "sae-alice"), ("ab", "c"), ("a", "bc"), ("", "sae-bob"),
         ("sae alice/ü€", "urn:sae:example:" + "x" * 200))


def directions():
    plain = bytes(range(64))
    long = b"".join(blake2b(b"", b"test root %d" % i, 64) for i in range(3))
    zero = bytes(16)
    yield Direction(plain, "KME-A", "KME-B", ksid(1), bytes(range(16)))
    yield Direction(plain, "KME-B", "KME-A", ksid(1), bytes(range(16)))  # the other direction
    yield Direction(plain, "KME-A", "KME-B", ksid(2), bytes(range(16)))  # another KSID
    yield Direction(plain, "KME-A", "KME-B", ksid(1), zero)              # another epoch
    yield Direction(plain, "KME-AK", "ME-B", ksid(1), bytes(range(16)))  # the same characters otherwise cut
    yield Direction(long[:65], "KME-A", "KME-B", ksid(1), zero)
    yield Direction(long[:96], "KME-A", "KME-B", ksid(1), zero)
    yield Direction(long, "KME-" + "9" * 60, "KME-B", ksid(3), blake2b(b"", b"test epoch", 16))


def vectors():
    out = []
    for d in directions():
        root, owner, far_end, stream, epoch = d.fields
        pairs = [{"master": m, "slave": s, "key": d.pair_key(m, s).hex()} for m, s in PAIRS]
        ids = [{"pair": p, "index": i, "size_bytes": z, "id": d.make(d.pair_key(*PAIRS[p]), i, z)}
               for p in range(len(PAIRS)) for i, z in POSITIONS]
        size_0 = [{"pair": 0, "id": d.make(d.pair_key(*PAIRS[0]), i, 0)} for i in (0, 7, 0xFFFFFFFF)]
        out.append({"root": root.hex(), "owner": owner, "far_end": far_end, "ksid": uuid_text(stream),
                    "epoch": epoch.hex(), "issue_key": d.issue.hex(), "position_key": d.position.hex(),
                    "pair_purpose_key": d.pair.hex(), "pairs": pairs, "ids": ids, "size_0": size_0})
    return {"version": 1, "directions": out}


def check(stored):
    """Opens what the file holds, rather than trust that it was made here."""
    for d, v in zip(directions(), stored["directions"], strict=True):
        for e in v["ids"]:
            p = v["pairs"][e["pair"]]
            got = d.open(d.pair_key(p["master"], p["slave"]), e["id"])
            assert got == (e["index"], e["size_bytes"], True), e
            other = d.open(d.pair_key("another", p["slave"]), e["id"])
            assert other == (e["index"], e["size_bytes"], False), e
        for e in v["size_0"]:
            p = v["pairs"][e["pair"]]
            assert d.open(d.pair_key(p["master"], p["slave"]), e["id"]) is None, e
    assert stored == vectors(), "the file differs from what this script makes"


def main():
    # The example of the SipHash paper, appendix A.
    assert siphash24(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5
    if sys.argv[1:] == ["--check"]:
        check(json.loads(FILE.read_text(encoding="utf-8")))
    elif sys.argv[1:] == []:
        FILE.write_text(json.dumps(vectors(), indent="\t", ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        sys.exit(f"usage: {sys.argv[0]} [--check]")


if __name__ == "__main__":
    main()
