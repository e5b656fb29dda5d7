#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A cable between two TAP interfaces that delays and loses frames, where the kernel has no netem:
wire.py TAP TAP DELAY_MS LOSS_PERCENT SEED. Makes the interfaces; says "ready"; they end with it."""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME = 65536
LONGEST = 4096  # frames under way; more are lost, as in a full queue


def tap(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return fd


def read_all(fd):
    while True:
        try:
            yield os.read(fd, FRAME)
        except (BlockingIOError, OSError):  # OSError: the interface is down
            return


def write(fd, frame):
    try:
        os.write(fd, frame)
    except OSError:
        pass  # down, or its queue is full: the frame is lost


def main(first, second, delay_ms, loss_percent, seed):
    delay, loss, rng = float(delay_ms) / 1000, float(loss_percent) / 100, random.Random(int(seed))
    ends = {tap(first): None, tap(second): None}
    a, b = ends
    ends = {a: b, b: a}
    print("ready", flush=True)
    under_way, number = [], 0
    poll = select.poll()
    for fd in ends:
        poll.register(fd, select.POLLIN)
    while True:
        wait = max(0, under_way[0][0] - time.monotonic()) if under_way else 60
        for fd, what in poll.poll(wait * 1000):
            if not what & select.POLLIN:
                time.sleep(0.05)  # down for now
            for frame in read_all(fd):
                number += 1
                if rng.random() >= loss and len(under_way) < LONGEST:
                    heapq.heappush(under_way, (time.monotonic() + delay, number, ends[fd], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, fd, frame = heapq.heappop(under_way)
            write(fd, frame)


if __name__ == "__main__":
    main(*sys.argv[1:])
