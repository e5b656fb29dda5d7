# SPDX-License-Identifier: Apache-2.0
"""Faults in random order, from a seed: what can befall a network, and the one who does it."""

import random
import resource
import signal
import time

from control import Control, under_faults
from delays import Ways
from load import Load
from network import binary, build_folder


class ChaosLoad(Load):
    """Where a disk refuses, dec_keys answers 503 and the key may be consumed or not."""

    def _fetch_one(self, client, ids):
        dec, unsure = client.dec, False

        def watching(*arguments):
            nonlocal unsure
            answer = dec(*arguments)
            if answer.status == 503:
                unsure = True
                self.ledger.lose(ids)
            return answer
        client.dec = watching
        try:
            super()._fetch_one(client, ids)
        finally:
            client.dec = dec
        if unsure:
            self.missing.difference_update(ids)


class Chaos:
    """Does one fault after the other to a running network; each ends before the next begins, but for
    gateways and simulators that are down meanwhile."""

    def __init__(self, net, seed):
        """Of a network that has not started."""
        self.net = net
        self._controls = {}
        for name, gateway in net.gateways.items():
            self._controls[name] = Control(net.folder / f"{name}.faults", binary("qkdgate"))
            under_faults(gateway, self._controls[name], build_folder())
        self._ways = Ways(net, seed)
        self.rng = random.Random(seed)
        self.done = {}
        self.begin = time.monotonic()

    FAULTS = ("kill", "kill_two", "stop_and_continue", "orderly_restart", "kill_link", "outage", "disk_full",
              "no_descriptors", "reload", "clock_step", "clock_freeze", "no_memory", "no_neighbours", "delay",
              "partition")
    DELAYS_S = (0, 0.005, 0.05, 0.3)

    def step(self):
        name = self.rng.choice(self.FAULTS)
        self.done[name] = self.done.get(name, 0) + 1
        getattr(self, name)()
        time.sleep(self.rng.uniform(0, 1))

    def calm(self):
        """Nothing is late any more."""
        for pair in self._ways.pairs():
            self._ways.delay(pair, 0)

    def end(self):
        self._ways.end()

    def _tell(self, *words):
        print(f"{time.monotonic() - self.begin:7.2f} s", *words, flush=True)

    def _gateway(self):
        return self.rng.choice(list(self.net.gateways.values()))

    def _again(self, process):
        process.start()
        process.wait_ready(60)

    def kill(self):
        gateway, pause = self._gateway(), self.rng.choice((0, 0, 0.3, 2))
        self._tell("kill -9", gateway.name, f"for {pause} s")
        gateway.kill()
        time.sleep(pause)
        self._again(gateway)

    def kill_two(self):
        two = self.rng.sample(list(self.net.gateways.values()), 2)
        self._tell("kill -9", *(g.name for g in two))
        for gateway in two:
            gateway.kill()
        for gateway in two:
            gateway.start()
        for gateway in two:
            gateway.wait_ready(60)

    def stop_and_continue(self):
        gateway, pause = self._gateway(), self.rng.uniform(0.2, 4)
        self._tell("stopped", gateway.name, f"for {pause:.1f} s")
        gateway.signal(signal.SIGSTOP)
        time.sleep(pause)
        gateway.signal(signal.SIGCONT)

    def orderly_restart(self):
        gateway = self._gateway()
        self._tell("restart", gateway.name)
        orderly = gateway.stop()
        assert orderly and gateway.exit_status == 0, gateway.log()[-3000:]
        self._again(gateway)

    def kill_link(self):
        link = self.rng.choice(self.net.topology.links)
        sims = [self.net.sims[link.sim_a], self.net.sims[link.sim_b]]
        self._tell("link loses its state", link.sim_a)
        for sim in sims:
            sim.kill()
        for sim in sims:
            sim.start()
        for sim in sims:
            sim.wait_ready(60)

    def outage(self):
        pause = self.rng.uniform(0.2, 3)
        self._tell("no link gives key", f"for {pause:.1f} s")
        self.net.outage(True)
        time.sleep(pause)
        self.net.outage(False)

    def disk_full(self):
        """No file of the gateway may grow."""
        gateway, pause = self._gateway(), self.rng.uniform(0.2, 2)
        self._tell("disk full", gateway.name, f"for {pause:.1f} s")
        self._limited(gateway, resource.RLIMIT_FSIZE, 4096, pause)

    def no_descriptors(self):
        gateway, pause = self._gateway(), self.rng.uniform(0.2, 2)
        self._tell("no further descriptors", gateway.name, f"for {pause:.1f} s")
        self._limited(gateway, resource.RLIMIT_NOFILE, 8, pause)

    def reload(self):
        gateway = self._gateway()
        self._tell("reload", gateway.name)
        gateway.signal(signal.SIGHUP)

    def clock_step(self):
        """The wall clock of one gateway is wrong from now on, until the next step."""
        gateway, step_s = self._gateway(), self.rng.choice((-600, -5, 0, 5, 600))
        self._tell("clock of", gateway.name, f"off by {step_s} s")
        self._controls[gateway.name].step_clock(step_s)

    def clock_freeze(self):
        gateway, pause = self._gateway(), self.rng.uniform(0.2, 2)
        self._tell("all clocks of", gateway.name, f"stand still for {pause:.1f} s")
        self._controls[gateway.name].freeze_clocks(True)
        time.sleep(pause)
        self._controls[gateway.name].freeze_clocks(False)

    def no_memory(self):
        gateway, calls = self._gateway(), self.rng.choice((1, 5, 50))
        self._tell("no memory for", calls, "calls of", gateway.name)
        self._while(gateway, self.rng.choice(("malloc", "calloc")), calls)

    def no_neighbours(self):
        """Cut off: nobody can be called, and no connection comes in or goes on."""
        gateway = self._gateway()
        self._tell("cut off", gateway.name)
        self._while(gateway, self.rng.choice(("connect", "accept4", "recv", "sendmsg")), 200)

    def delay(self):
        """What two gateways say to each other comes late from now on, until the next such fault of theirs."""
        pair, delay_s = self.rng.choice(self._ways.pairs()), self.rng.choice(self.DELAYS_S)
        self._tell("between", *pair, f"each way takes {delay_s} s to {2 * delay_s} s")
        self._ways.delay(pair, delay_s)

    def partition(self):
        """Nothing passes between one gateway, or two, and the others, and nobody is told."""
        some, pause = self.rng.sample(sorted(self.net.gateways), self.rng.choice((1, 2))), self.rng.uniform(0.2, 4)
        self._tell("apart from the others:", *some, f"for {pause:.1f} s")
        parted = [pair for pair in self._ways.pairs() if (pair[0] in some) != (pair[1] in some)]
        for on in (True, False):
            for pair in parted:
                self._ways.shut(pair, on)
            time.sleep(pause if on else 0)

    def _while(self, gateway, function, calls):
        control = self._controls[gateway.name]
        control.arm(function, own=True if function.endswith("alloc") else None, times=calls)
        time.sleep(self.rng.uniform(0.2, 2))
        control.disarm()

    @staticmethod
    def _limited(gateway, what, limit, pause):
        soft, hard = resource.prlimit(gateway.pid, what)
        resource.prlimit(gateway.pid, what, (limit, hard))
        time.sleep(pause)
        resource.prlimit(gateway.pid, what, (soft, hard))
