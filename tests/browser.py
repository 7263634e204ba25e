"""A headless Chromium, driven over WebDriver's plain HTTP (https://www.w3.org/TR/webdriver2/): no package needed."""

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name that the standard gives to a reference
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,1000"]
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """One window."""

    def __init__(self, port: str) -> None:
        self._base = f"http://127.0.0.1:{port}"
        options = {"browserName": "chrome", "goog:chromeOptions": {"binary": shutil.which("chromium"), "args": FLAGS}}
        made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": options}})
        self._base += f"/session/{made['sessionId']}"

    def _send(self, method: str, path: str, data: dict[str, Any] | None = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self._base + path, body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def open(self, page: Path) -> None:
        self._send("POST", "/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def press(self, selector: str, keys: str) -> None:
        """Type into an element."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        self._send("POST", f"/element/{found[ELEMENT]}/value", {"text": keys})

    def emulate(self, command: str, **parameters: Any) -> None:
        """Pretend something of the device."""
        self._send("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": parameters})

    def picture(self, selector: str) -> np.ndarray:
        """An element as it is seen, uint8 (rows, cols, 3)."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        data = base64.b64decode(self._send("GET", f"/element/{found[ELEMENT]}/screenshot"))
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def close(self) -> None:
        self._send("DELETE", "")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start the driver on a free port, and end it."""
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            port = next(match[1] for line in driver.stdout if (match := re.search(r"on port (\d+)\.$", line)))
            window = Browser(port)
            try:
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()
