"""The teleoperation page in a real browser: keys, buttons, a gamepad, pictures, signals, and losing it."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time

import numpy as np
import pytest
import websockets.sync.client

from robolearn.contracts import RobotState
from robolearn.hardware.observe import Reading
from robolearn.hardware.page import Page
from robolearn.hardware.processes import wait_for
from robolearn.robots.panda import PANDA

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="NO CHROMIUM: the page is not tested in a browser")

GAMEPAD = """
const buttons = Array.from({length: 8}, (_, i) => ({pressed: i === 5}));
navigator.getGamepads = () => [{axes: [0, -1, 0, 0.05], buttons}];
"""


class Browser:
    """One tab, driven by Chromium's own protocol (https://chromedevtools.github.io/devtools-protocol)."""

    def __init__(self, profile):
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
        command = [BROWSER, *options, f"--user-data-dir={profile}", "--window-size=900,700", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        where = profile / "DevToolsActivePort"
        wait_for(lambda: where.is_file() and len(where.read_text().split()) == 2, 120, "the browser's start")
        port, path = where.read_text().split()
        self._open = contextlib.ExitStack()
        address = f"ws://127.0.0.1:{port}{path}"
        self._wire = self._open.enter_context(websockets.sync.client.connect(address, max_size=None, open_timeout=60))
        self._numbers, self._session = itertools.count(1), None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._wire.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = json.loads(self._wire.recv(timeout=60))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def value(self, expression):
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def key(self, kind, key):
        self.ask("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def close(self):
        self._open.close()
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def page(browser):
    made = Page()
    browser.ask("Page.navigate", url=made.url)
    wait_for(lambda: browser.value("document.getElementById('state')?.textContent") == "connected", 60, "the page")
    yield made
    made.close()


def test_keys_move_as_long_as_they_are_held(browser, page):
    browser.key("keyDown", "w")
    browser.key("keyDown", "Q")
    wait_for(lambda: (page.read().linear, page.read().yaw) == ((1.0, 0.0, 0.0), 1.0), 20, "two keys")
    browser.key("keyUp", "w")
    browser.key("keyUp", "Q")
    wait_for(lambda: page.read().idle, 20, "silence")


@pytest.mark.parametrize("mark", ["success", "discard", "takeover", "rewind", "handback", "stop"])
def test_every_button_marks(browser, page, mark):
    seen = []
    browser.value(f"document.getElementById('{mark}').click()")
    wait_for(lambda: seen.append(page.read().mark) or mark in seen, 20, "a mark")


def test_keys_mark_too(browser, page):
    seen = []
    browser.key("keyDown", "t")
    wait_for(lambda: seen.append(page.read().mark) or "takeover" in seen, 20, "a mark")


def test_a_gamepad_moves(browser, page):
    browser.value(GAMEPAD)
    wait_for(lambda: page.read().linear == (1.0, 0.0, 0.0) and page.read().gripper == 1.0, 20, "the stick")
    browser.value("navigator.getGamepads = () => []")
    wait_for(lambda: page.read().idle, 20, "silence")


def test_pictures_and_signals_are_seen(browser, page, tmp_path):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :, 0] = 255
    state = RobotState(0, PANDA.joints, np.array(PANDA.home_rad), np.zeros(7))
    reading, signals = Reading(state, {"front": picture}), {"mode": "run", "tool x [m]": 0.4567}

    def shown():
        page.show(reading, signals)
        time.sleep(0.1)
        return browser.value("document.getElementById('camera-front')?.naturalWidth") == 64

    wait_for(shown, 20, "a picture")
    table = browser.value("document.getElementById('signals').innerText")
    assert [line.split("\t") for line in table.splitlines()] == [["mode", "run"], ["tool x [m]", "0.457"]]
    screen = base64.b64decode(browser.ask("Page.captureScreenshot")["data"])
    cv2 = pytest.importorskip("cv2")
    pixels = cv2.imdecode(np.frombuffer(screen, np.uint8), cv2.IMREAD_COLOR)
    red = (pixels[..., 2] > 200) & (pixels[..., 1] < 90) & (pixels[..., 0] < 90)
    assert red.sum() > 300 * 400  # the picture, 320 pixels high
    (tmp_path / "page.png").write_bytes(screen)


def test_the_page_says_when_it_is_cut_off(browser, page):
    page._loop.call_soon_threadsafe(lambda: [client.transport.abort() for client in page._clients])
    said = "document.getElementById('state').textContent.startsWith('disconnected')"
    wait_for(lambda: browser.value(said), 20, "a word about it")
    assert page.read().idle
