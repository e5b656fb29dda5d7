# SPDX-License-Identifier: Apache-2.0
"""The picture of docs/dashboard.md: a network under load for some minutes, make dashboard-picture."""

import threading
import time

from browser import Browser
from network import PROJECT
from test_dashboard import lines, sign_in, with_passwords, write_passwords  # noqa: F401
from topology import diamond

LOAD_S = 150
MOST_BYTES = 150 * 1000


def test_picture(make_network, lines, e2e_folder):  # noqa: F811
    net = make_network(diamond(), tweak=lambda _, config: with_passwords(config), admin=True, start=False)
    for node in net.gateways:
        write_passwords(net, lines("carol"), node)
    net.start()
    net.wait_stock("alice", "carol", 1000)
    end = threading.Event()

    def load():
        """In waves, so that the charts have something to show."""
        with net.client("alice") as alice, net.client("carol") as carol:
            while not end.is_set():
                answer = alice.enc("sae-carol", number=1 + int(time.monotonic() / 20) % 3 * 4)
                if answer.status == 200:
                    carol.dec("sae-alice", *(i for i, _ in answer.keys()))
                time.sleep(0.1)

    loading = threading.Thread(target=load)
    loading.start()
    browser = Browser(e2e_folder / "chromium", net.pki / "kme-a.pem", size=(1280, 1000))
    try:
        browser.resize(1280, 1130)
        browser.prefer("light")
        sign_in(browser, net, "carol")
        browser.wait("the page", lambda: browser.shown("#picture svg"))
        time.sleep(LOAD_S)
        browser.run("scrollTo(0, 0); document.activeElement.blur()")
        picture = browser.picture(PROJECT / "docs/dashboard.png")
    finally:
        end.set()
        loading.join()
        browser.close()
    assert picture.stat().st_size < MOST_BYTES
