# SPDX-License-Identifier: Apache-2.0
"""Processes that outlive the script that started them: pid files, logs, readiness, the end."""

import os
import signal
import subprocess
import time
from pathlib import Path


class ProcessFailed(Exception):
    """A process ended or did not get ready; the text carries the end of its log."""


PATIENCE = 3  # waits last so many times longer before they are given up: the machine may be busy


def wait_for(what, probe, timeout_s, interval_s=0.02):
    """Calls probe until it returns something true, which is returned."""
    timeout_s *= PATIENCE
    end = time.monotonic() + timeout_s
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() >= end:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(interval_s)


def _state_of(pid):
    """The state letter of a process, or None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[0]


def _arguments_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


class Process:
    """A program under a name: run/NAME.pid holds its own pid, log/NAME.log what it says."""

    def __init__(self, folder, name, arguments):
        self.name = name
        self.arguments = [str(a) for a in arguments]
        self.folder = Path(folder)
        self.pid_file = self.folder / "run" / f"{name}.pid"
        self.log_file = self.folder / "log" / f"{name}.log"
        self.ignored_signals = ()
        self._child = None
        self._log_start = 0

    @property
    def pid(self):
        """Its pid while it runs, else None."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        alive = _state_of(pid) not in (None, "Z") and _arguments_of(pid) == self.arguments
        return pid if alive else None

    @property
    def exit_status(self):
        return None if self._child is None else self._child.poll()

    def start(self):
        if self.pid is not None:
            raise ProcessFailed(f"{self.name} runs already")
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log_file, "ab") as log:
            self._log_start = log.tell()
            self._child = subprocess.Popen(self.arguments, stdin=subprocess.DEVNULL, stdout=log,
                                           stderr=log, start_new_session=True,
                                           preexec_fn=self._ignore_signals)
        self.pid_file.write_text(f"{self._child.pid}\n")

    def _ignore_signals(self):
        for number in self.ignored_signals:
            signal.signal(number, signal.SIG_IGN)

    def log(self, whole=False):
        """What the log says, by default since the last start."""
        try:
            with open(self.log_file, "rb") as log:
                log.seek(0 if whole else self._log_start)
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def lines(self, *words, whole=False):
        """The log lines in which every word stands. What is being written at its end is none yet."""
        text, end, _ = self.log(whole).rpartition("\n")
        return [x for x in (text + end).splitlines() if all(w in x for w in words)]

    def wait_log(self, *words, timeout_s=20, count=1):
        def probe():
            found = self.lines(*words)
            return found if len(found) >= count else None
        return wait_for(f"{self.name} to log {' '.join(words)}", probe, timeout_s)

    def wait_ready(self, timeout_s=20):
        def probe():
            if self.lines("event=ready"):
                return True
            if self.pid is None:
                raise ProcessFailed(f"{self.name} ended at once:\n{self.log()[-3000:]}")
            return False
        try:
            wait_for(f"{self.name} ready", probe, timeout_s)
        except TimeoutError as error:
            raise ProcessFailed(f"{error}\n{self.log()[-3000:]}") from None

    def signal(self, number):
        pid = self.pid
        if pid is None:
            raise ProcessFailed(f"{self.name} does not run:\n{self.log()[-3000:]}")
        os.kill(pid, number)

    def wait_end(self, timeout_s=30):
        wait_for(f"end of {self.name}", lambda: self.pid is None, timeout_s, 0.005)

    def kill(self):
        """Ends it at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.wait_end(10)

    def stop(self, timeout_s=40):
        """Asks it to end in order; kills it when it does not. Tells whether it ended by itself."""
        orderly = True
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
            try:
                self.wait_end(timeout_s)
            except TimeoutError:
                orderly = False
                self.kill()
        self.pid_file.unlink(missing_ok=True)
        return orderly

    def cpu_seconds(self):
        """User and system time spent so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
