# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium that trusts the demo authority's servers, for the tests of the dashboard."""

import base64
import hashlib
import os

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from processes import wait_for

BINARY, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def public_key_hash(certificate):
    """As Chromium wants it: this server is trusted, and no other."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    return base64.b64encode(hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()).decode()


class Browser:
    """One window. Its profile is new and lies in the folder given."""

    def __init__(self, folder, *certificates, size=(1440, 1000), timeout_s=60):
        options = Options()
        options.binary_location = BINARY
        folder.mkdir(parents=True, exist_ok=True)
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                         "--disable-background-networking", "--disable-component-update", "--disable-sync",
                         "--disable-extensions", "--hide-scrollbars", "--force-device-scale-factor=1",
                         f"--window-size={size[0]},{size[1]}", f"--user-data-dir={folder / 'profile'}",
                         f"--ignore-certificate-errors-spki-list={','.join(map(public_key_hash, certificates))}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        environment = {**os.environ, "HOME": str(folder)}
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER, env=environment))
        self.driver.set_page_load_timeout(3 * timeout_s)
        self.driver.set_script_timeout(3 * timeout_s)
        self._timeout_s = timeout_s
        self._said = []

    def close(self):
        self.driver.quit()

    # --- asking ---------------------------------------------------------------------------------

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def wait(self, what, condition):
        """Until condition() is true."""
        return wait_for(what, condition, self._timeout_s, 0.1)

    def text(self, selector):
        """Of the first that fits; None: there is none, or it is hidden."""
        return self.run("const e = document.querySelector(arguments[0]);"
                        "return e && e.checkVisibility() ? e.textContent : null", selector)

    def texts(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", selector)

    def shown(self, selector):
        return self.text(selector) is not None

    def click(self, selector):
        """The page may draw it anew between finding and clicking: then it was not clicked."""
        def clicked():
            try:
                self.driver.find_element("css selector", selector).click()
            except StaleElementReferenceException:
                return False
            return True
        self.wait(f"{selector} to stay", clicked)

    def type(self, selector, text):
        field = self.driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(text)

    def press(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def console(self):
        """All that the console said since the start."""
        self._said += [f"{entry['level']} {entry['message']}" for entry in self.driver.get_log("browser")]
        return self._said

    def forget(self):
        """What the console said until now was meant."""
        self.console()
        self._said = []

    # --- as whom, on what -------------------------------------------------------------------------

    def devtools(self, command, **arguments):
        return self.driver.execute_cdp_cmd(command, arguments)

    def resize(self, width, height, phone=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def prefer(self, scheme):
        """"light" or "dark", as a system would say it."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path, whole=False):
        """Keeps what is seen, or the whole page."""
        options = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.devtools("Page.captureScreenshot", **options)["data"]))
        return path
