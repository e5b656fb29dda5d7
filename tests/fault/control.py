# SPDX-License-Identifier: Apache-2.0
"""What libfault.so is told, and what it counted: the file of faults.h, from the side of the test."""

import bisect
import errno
import mmap
import re
import struct
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAGIC = 0x31746C7561666771
SITES = 8192
# Of faults.h: magic; armed, object; site; skip; times; error; half, fired; fired_at; step_ns; frozen, clock_reads;
# frozen_ns, thaw_ns.
HEAD = struct.Struct("=QIIQqqqIIQqII16qq")
SITE = struct.Struct("=QQ")
OBJECTS, NAME = 256, 32
OWN, LIBRARIES = 1, 2
FOREVER = 1 << 40


@dataclass(frozen=True)
class Error:
    """How a call fails: with a number, and for a write after half of it (2), or short without an error (1).
    Clocks step by so many seconds, or stand still for so many milliseconds (1)."""

    name: str
    number: int
    half: int = 0


def _system(*names):
    return tuple(Error(n, getattr(errno, n)) for n in names)


MEMORY = _system("ENOMEM")
DISK = _system("EIO", "ENOSPC")
SQLITE = (Error("SQLITE_BUSY", 5), Error("SQLITE_NOMEM", 7), Error("SQLITE_IOERR", 10),
          Error("SQLITE_CORRUPT", 11), Error("SQLITE_FULL", 13))
TLS = (Error("GNUTLS_E_INTERNAL_ERROR", -59), Error("GNUTLS_E_MEMORY_ERROR", -25))
TLS_IO = (Error("GNUTLS_E_PUSH_ERROR", -53), Error("GNUTLS_E_DECRYPTION_FAILED", -24),
          Error("GNUTLS_E_PREMATURE_TERMINATION", -110))
# Function: how it may fail. The order is that of the kinds in faults.c.
FUNCTIONS = {
    "malloc": MEMORY, "calloc": MEMORY, "realloc": MEMORY, "reallocarray": MEMORY, "strdup": MEMORY,
    "strndup": MEMORY, "vasprintf": MEMORY,
    "open_memstream": MEMORY, "sodium_malloc": MEMORY,
    "open": _system("EMFILE", "EIO", "EACCES"), "read": _system("EIO"), "pread": _system("EIO"),
    "write": (*DISK, Error("half, then ENOSPC", errno.ENOSPC, 2), Error("short", 0, 1)),
    "pwrite": (*DISK, Error("half, then EIO", errno.EIO, 2), Error("short", 0, 1)),
    "fsync": DISK, "fdatasync": DISK, "ftruncate": DISK, "rename": DISK, "flock": _system("EIO"),
    "fcntl": _system("EIO", "EAGAIN"), "unlink": _system("EIO", "EACCES"), "statvfs": _system("EIO"),
    "opendir": _system("EMFILE", "EACCES"),
    "socket": _system("EMFILE", "ENFILE"), "accept4": _system("EMFILE", "ENOBUFS"), "bind": _system("EADDRINUSE"),
    "listen": _system("EADDRINUSE"), "connect": _system("ENETUNREACH"), "setsockopt": _system("ENOBUFS"),
    "send": _system("ECONNRESET"), "sendmsg": _system("ECONNRESET"), "recv": _system("ECONNRESET"),
    "epoll_create1": _system("EMFILE"), "epoll_ctl": _system("ENOSPC"),
    "epoll_wait": _system("EINTR"), "poll": _system("EINTR", "ENOMEM"), "eventfd": _system("EMFILE"),
    "getsockname": _system("ENOBUFS"), "getaddrinfo": (Error("EAI_AGAIN", -3), Error("EAI_MEMORY", -10)),
    "pthread_create": _system("EAGAIN"),
    "clock_gettime": (Error("20 s forward", 20), Error("20 s back", -20), Error("stands still", 1000, 1)),
    "sqlite3_open_v2": (Error("SQLITE_CANTOPEN", 14),), "sqlite3_exec": SQLITE, "sqlite3_prepare_v2": SQLITE,
    "sqlite3_prepare_v3": SQLITE, "sqlite3_bind_blob64": SQLITE[1:2], "sqlite3_bind_int64": SQLITE[1:2],
    "sqlite3_bind_text": SQLITE[1:2], "sqlite3_bind_null": SQLITE[1:2],
    "sqlite3_step": SQLITE,
    "gnutls_init": TLS, "gnutls_handshake": (*TLS, *TLS_IO), "gnutls_record_send": (*TLS, *TLS_IO),
    "gnutls_record_recv": (*TLS, *TLS_IO), "gnutls_credentials_set": TLS, "gnutls_priority_set": TLS,
    "gnutls_certificate_verify_peers": TLS, "gnutls_certificate_allocate_credentials": TLS[1:],
    "gnutls_session_ticket_key_generate": TLS, "gnutls_session_ticket_enable_server": TLS,
    "gnutls_priority_init": TLS[1:], "gnutls_certificate_set_x509_key": TLS,
    "gnutls_certificate_set_x509_trust_mem": TLS, "gnutls_certificate_set_x509_crl_mem": TLS,
    "gnutls_x509_privkey_init": TLS[1:], "gnutls_x509_privkey_import2": TLS, "gnutls_x509_crl_list_import2": TLS,
    "gnutls_x509_crt_list_import2": TLS, "gnutls_x509_crt_init": TLS[1:], "gnutls_x509_crt_import": TLS,
    "gnutls_x509_crt_get_subject_alt_name": TLS, "gnutls_x509_crt_get_dn_by_oid": TLS,
    "gnutls_x509_crt_get_fingerprint": TLS,
    "curl_easy_init": MEMORY, "curl_multi_init": MEMORY, "curl_easy_setopt": (Error("CURLE_OUT_OF_MEMORY", 27),),
    "curl_multi_setopt": (Error("CURLM_OUT_OF_MEMORY", 3),),
    "curl_multi_add_handle": (Error("CURLM_OUT_OF_MEMORY", 3),),
    "curl_multi_perform": (Error("CURLM_OUT_OF_MEMORY", 3), Error("CURLM_INTERNAL_ERROR", 4)),
    "curl_multi_poll": (Error("CURLM_OUT_OF_MEMORY", 3),), "curl_slist_append": MEMORY,
    "curl_result": (Error("CURLE_RECV_ERROR", 56), Error("CURLE_OPERATION_TIMEDOUT", 28)),
    "MHD_create_response_from_buffer": MEMORY,
    "MHD_create_response_from_buffer_with_free_callback_cls": MEMORY,
    "MHD_add_response_header": MEMORY, "MHD_queue_response": MEMORY,
    "json_object": MEMORY, "json_array": MEMORY, "json_string": MEMORY, "json_stringn": MEMORY,
    "json_integer": MEMORY, "json_real": MEMORY, "json_object_set_new": MEMORY, "json_array_append_new": MEMORY,
    "json_dumps": MEMORY, "json_deep_copy": MEMORY,
}
KINDS = list(FUNCTIONS)
_NAMES = re.findall(r"^\tK_(\w+),", (HERE / "faults.c").read_text(), re.M)
assert _NAMES == KINDS, "control.py and faults.c name different functions"


@cache
def symbols(program):
    """The functions of a program by their offsets: two lists."""
    table = subprocess.run(["nm", "-n", program], capture_output=True, text=True, check=True).stdout
    found = [(int(a, 16), n) for a, t, n in (x.split() for x in table.splitlines() if x[0] != " ") if t in "tTW"]
    return [a for a, _ in found], [n for _, n in found]


@dataclass(frozen=True)
class Site:
    """Where a function is called: `where` as libfault.so has it."""

    where: int
    calls: int
    program: str
    object: str  # the library's file; of the program itself empty

    @property
    def function(self):
        return KINDS[self.where >> 56]

    @property
    def own(self):
        """Whether the program itself calls, not one of its libraries."""
        return self.where >> 48 & 0xFF == 1

    @property
    def caller(self):
        """The function of the program that calls, or the library."""
        return self._place[0]

    @property
    def _place(self):
        """Who calls, and how far from its beginning."""
        offset = self.where & (1 << 48) - 1
        if not self.own:
            return self.object, offset
        offsets, names = symbols(self.program)
        at = bisect.bisect_right(offsets, offset - 1) - 1
        return names[at], offset - offsets[at]

    def __str__(self):
        """The same as long as the code of the caller is."""
        caller, offset = self._place
        return f"{self.function} in {caller}+{offset:#x}"


class Control:
    """Of one process; it keeps its file over restarts."""

    def __init__(self, path, program):
        self.program = str(program)
        self.path = Path(path)
        size = HEAD.size + SITES * SITE.size + OBJECTS * NAME
        self.path.write_bytes(struct.pack("=Q", MAGIC) + bytes(size - 8))
        with open(self.path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), size)
        self._fields = {}

    # Offsets of the head's fields.
    _AT = {"armed": (8, "=I"), "object": (12, "=I"), "site": (16, "=Q"), "skip": (24, "=q"), "times": (32, "=q"),
           "error": (40, "=q"), "half": (48, "=I"), "fired": (52, "=I"), "fired_at": (56, "=Q"),
           "step_ns": (64, "=q"), "frozen": (72, "=I"), "clock_reads": (76, "=I")}

    def _put(self, **fields):
        for name, value in fields.items():
            at, form = self._AT[name]
            struct.pack_into(form, self._map, at, value)

    def _get(self, name):
        at, form = self._AT[name]
        return struct.unpack_from(form, self._map, at)[0]

    def arm(self, function, error=None, site=None, own=None, skip=0, times=1):
        """From now on `times` calls fail, after `skip` that do not: those of one site, or of the
        program itself (own), or of its libraries (own=False), or any."""
        error = error or FUNCTIONS[function][0]
        self.disarm()
        self._put(object={None: 0, True: OWN, False: LIBRARIES}[own], site=site.where if site else 0, skip=skip,
                  times=times, error=error.number, half=error.half, fired=0, fired_at=0)
        self._put(armed=KINDS.index(function) + 1)

    def disarm(self):
        self._put(armed=0)

    @property
    def fired(self):
        """How many calls failed since it was armed."""
        return self._get("fired")

    @property
    def fired_at(self):
        return self._site(self._get("fired_at"), 0)

    def _site(self, where, calls):
        at = HEAD.size + SITES * SITE.size + NAME * (where >> 48 & 0xFF)
        name = self._map[at:at + NAME].split(b"\0")[0].decode()
        return Site(where, calls, self.program, name)

    def step_clock(self, seconds):
        """CLOCK_REALTIME is so far off from now on."""
        self._put(step_ns=int(seconds * 1e9))

    def freeze_clocks(self, on):
        if on:
            struct.pack_into("=17q", self._map, 80, *([0] * 17))
            self._put(clock_reads=0)
        self._put(frozen=int(on))

    @property
    def clock_reads(self):
        """How often a clock was read while frozen."""
        return self._get("clock_reads")

    def forget_sites(self):
        self._map[HEAD.size:HEAD.size + SITES * SITE.size] = bytes(SITES * SITE.size)

    def sites(self):
        """Every call site that was seen, in the order of the functions."""
        found = [self._site(where, calls) for where, calls in
                 SITE.iter_unpack(self._map[HEAD.size:HEAD.size + SITES * SITE.size]) if where]
        return sorted(found, key=lambda s: s.where)

    def find(self, function, caller):
        """The sites of a function in a caller of the program, in the order of its text."""
        return [s for s in self.sites() if s.own and s.function == function and s.caller == caller]


def library(build):
    return Path(build) / "fault" / "libfault.so"


def under_faults(process, control, build):
    """From its next start the process runs with libfault.so between it and what it calls."""
    process.arguments[:0] = ["env", f"LD_PRELOAD={library(build)}", f"QG_FAULTS={control.path}"]
