"""The page of ``look`` in a real browser: it opens from disk without an error or a request, and its keys work."""

import json
import os
import shutil
import time

import pytest
from command_line import done, make_network

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
LONG = "def f(x):\n    return [x, 1]  # <b>&amp;</b>\n" * 2500


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the extra `browser`)")
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed (apt-get install chromium chromium-driver)")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("headless=new", "disable-gpu", "disable-background-networking", f"user-data-dir={profile}"):
        options.add_argument(f"--{argument}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # it refuses to run as root otherwise
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser, path):
    browser.get_log("performance")
    browser.get(path.as_uri())


def requests(browser):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def test_what_is_shown_as_an_escape_has_room(browser, tmp_path):
    cfg, weights, _ = make_network(tmp_path)
    (tmp_path / "text").write_bytes("a漢\u3000\u202e".encode() + b"\x1b\xff")
    done("look", cfg, weights, tmp_path / "text", "--html", tmp_path / "page.html")
    opened(browser, tmp_path / "page.html")
    found = browser.execute_script(
        "return [...document.querySelectorAll('.c')].map(c => [c.innerText, c.clientWidth, c.scrollWidth])"
    )
    assert [text for text, *_ in found] == ["a", "漢", "\u3000", r"\u202e", r"\x1b", r"\xff"]
    one = found[0][1]
    assert [width for _, width, _ in found] == pytest.approx([one, 2 * one, 2 * one, 6 * one, 4 * one, 4 * one], abs=3)
    assert all(needed <= width for _, width, needed in found)


@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn"])
def test_look(browser, tmp_path, layer):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    cfg, weights, _ = make_network(tmp_path, layer)
    (tmp_path / "text.py").write_text(LONG)
    page = tmp_path / "page.html"
    done("look", cfg, weights, tmp_path / "text.py", "--cell", 2, "--html", page)
    opened(browser, page)

    def press(*keys):
        ActionChains(browser).send_keys(*keys).perform()

    def cell():
        return browser.find_element("id", "cell").text

    def pressed():
        found = browser.find_elements("css selector", "[data-view][aria-pressed=true]")
        return [button.get_attribute("data-view") for button in found]

    def classes():
        return browser.execute_script("return [...document.querySelectorAll('.c b')].slice(0, 200).map(b => b.className)")

    assert cell() == "cell 2 of 6"
    assert browser.execute_script("return document.querySelector('.row').innerText.replace(/\\n/g, '')") == "def f(x):↵"
    before = classes()
    press(Keys.ARROW_RIGHT)
    assert cell() == "cell 3 of 6" and classes() != before
    press(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert cell() == "cell 5 of 6"  # around the end
    browser.find_element("css selector", "#strip [data-m='2']").click()
    assert cell() == "cell 2 of 6" and classes() == before
    gates = {"lstm": "ifo", "gru": "rz", "rnn": ""}[layer]
    for number, gate in enumerate(gates, 2):
        press(str(number))
        assert pressed() == [gate] and classes() != before
    press("1", "n")
    assert pressed() == ["value"]
    assert len(browser.find_elements("css selector", ".row:first-child .c:first-child s")) == 5
    browser.execute_script("const t = document.getElementById('text'); t.scrollTop = t.scrollHeight")
    deadline = time.monotonic() + 10
    while str(len(LONG) - 1) != (last := browser.execute_script("return [...document.querySelectorAll('.c')].pop().dataset.n")):
        assert time.monotonic() < deadline, last
    assert len(browser.find_elements("css selector", ".row")) < 60  # only what can be seen is drawn
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"] == []
    assert [url for url in requests(browser) if url != page.as_uri()] == []
