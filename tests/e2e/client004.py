# SPDX-License-Identifier: Apache-2.0
"""libqkdgate's key streams in a process of their own: as a program it reads one call a line as JSON and answers each
in a line; the class Peer runs one and calls it."""

import ctypes as c
import json
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ERRORS = re.findall(r"^\s*(QG_(?:OK|E_\w+))\b", (PROJECT / "include/qkdgate/error.h").read_text(), re.M)


class Files(c.Structure):
    _fields_ = [("certificate", c.c_char_p), ("key", c.c_char_p), ("ca", c.c_char_p)]


class Options(c.Structure):
    _fields_ = [("host", c.c_char_p), ("port", c.c_uint), ("profile", c.c_int), ("files", c.POINTER(Files)),
                ("server_name", c.c_char_p), ("source_uri", c.c_char_p), ("destination_uri", c.c_char_p),
                ("ksid", c.c_char_p), *((n, c.c_uint32) for n in (
                    "chunk_size", "max_bps", "min_bps", "jitter_bps", "priority", "ttl_s", "timeout_ms")),
                ("metadata", c.c_bool)]


class Chunk(c.Structure):
    _fields_ = [("index", c.c_uint32), ("len", c.c_size_t), ("has_metadata", c.c_bool), ("age_ms", c.c_uint32),
                ("hops", c.c_uint32)]


class Streams:
    """What one process does with the library."""

    def __init__(self, path):
        self.lib = c.CDLL(path)
        self.lib.qg_client_stream_ksid.restype = c.c_char_p
        self.lib.qg_client_stream_chunk_size.restype = c.c_uint32
        self.lib.qg_client_stream_waits_for_peer.restype = c.c_bool
        self.stream = c.c_void_p()

    def open(self, files=None, **options):
        texts = {k: v.encode() if isinstance(v, str) else v for k, v in options.items()}
        if files:
            texts["files"] = c.pointer(Files(**{k: v.encode() for k, v in files.items()}))
        status, size = c.c_uint(999), c.c_uint32(0)
        err = self.lib.qg_client_stream_open(c.byref(Options(**texts)), c.byref(self.stream), c.byref(status),
                                             c.byref(size))
        told = {"err": ERRORS[err], "status": status.value, "offered": size.value}
        if err == 0:
            told |= {"ksid": self.lib.qg_client_stream_ksid(self.stream).decode(),
                     "chunk_size": self.lib.qg_client_stream_chunk_size(self.stream),
                     "alone": self.lib.qg_client_stream_waits_for_peer(self.stream)}
        return told

    def get(self, index, room=4096):
        key, chunk = (c.c_uint8 * 4096)(), Chunk(index=77)
        err = self.lib.qg_client_stream_get(self.stream, c.c_uint32(index), key, c.c_size_t(room), c.byref(chunk))
        told = {"err": ERRORS[err], "status": self.lib.qg_client_stream_status(self.stream)}
        if err == 0:
            told |= {"index": chunk.index, "key": bytes(key[:chunk.len]).hex(), "age": chunk.age_ms,
                     "hops": chunk.hops if chunk.has_metadata else None}
        else:  # out-parameters are written on success alone
            assert chunk.index == 77 and not any(key)
        return told

    def many(self, first, count):
        return [self.get(index) for index in range(first, first + count)]

    def close(self):
        return {"err": ERRORS[self.lib.qg_client_stream_close(c.byref(self.stream))], "gone": not self.stream}

    def leave(self):
        self.lib.qg_client_stream_leave(c.byref(self.stream))
        return {"gone": not self.stream}


class Peer:
    """A process that calls the library."""

    def __init__(self, library):
        self._process = subprocess.Popen([sys.executable, __file__, str(library)], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)

    def begin(self, call, *arguments, **options):
        self._process.stdin.write(json.dumps([call, arguments, options]) + "\n")
        self._process.stdin.flush()

    def end(self):
        line = self._process.stdout.readline()
        assert line, f"the process ended with {self._process.wait()}"
        return json.loads(line)

    def __getattr__(self, call):
        def do(*arguments, **options):
            self.begin(call, *arguments, **options)
            return self.end()
        return do

    def stop(self):
        """The process ends by itself; a crash of the library shows here."""
        self._process.stdin.close()
        return self._process.wait(120)


def main(path):
    streams = Streams(path)
    for line in sys.stdin:
        call, arguments, options = json.loads(line)
        print(json.dumps(getattr(streams, call)(*arguments, **options)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
