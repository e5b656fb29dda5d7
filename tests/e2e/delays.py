# SPDX-License-Identifier: Apache-2.0
"""Ways between gateways that take their time, or for a while let nothing through: TCP relays on
loopback, below TLS."""

import random
import threading
import time

from tcp_way import TcpWay


class Way(TcpWay):
    """From one gateway to another's listener. What goes over it comes late by `delay_s` and up to as
    much again, in its order; while it is shut nothing comes, and every connection stays open."""

    def __init__(self, target, seed):
        self.delay_s = 0
        self._rng = random.Random(seed)
        self._open = threading.Event()
        self._open.set()
        super().__init__(target)
        self.url = "https://%s:%d" % self.address

    def shut(self, on):
        if on:
            self._open.clear()
        else:
            self._open.set()

    def passing(self, source, data):
        if self.delay_s:
            time.sleep(self.delay_s * self._rng.uniform(1, 2))
        self._open.wait()

    def end(self):
        self.shut(False)
        super().end()


class Ways:
    """Between all gateways of a network that has not started: one in each direction, and both of two
    nodes behave alike; between borders of two networks also for what they hand over."""

    def __init__(self, net, seed):
        self._of = {}
        for node in net.topology.nodes:
            for neighbour in net.topology.neighbours_of(node.name):
                way = Way(net.endpoints[f"{neighbour.name}/kms"], f"{seed} {node.name} {neighbour.name}")
                net.put_between(node.name, neighbour.name, way.url)
                self._add(node.name, neighbour.name, way)
        for peering in net.topology.peerings:
            for border in (peering.a, peering.b):
                way = Way(net.endpoints[f"{border}/kxi"], f"{seed} {border}")
                net.put_before(border, way.url)
                self._add(border, peering.other(border), way)

    def _add(self, node, other, way):
        self._of.setdefault(tuple(sorted((node, other))), []).append(way)

    def pairs(self):
        return sorted(self._of)

    def delay(self, pair, delay_s):
        for way in self._of[pair]:
            way.delay_s = delay_s

    def shut(self, pair, on):
        for way in self._of[pair]:
            way.shut(on)

    def end(self):
        for ways in self._of.values():
            for way in ways:
                way.end()
