"""The dashboard in a real Chromium: what an operator sees and does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from site_of_tests import TOKEN, Site, wait_for

pytest.importorskip("starlette", reason="the extra `watch` is not installed")
pytest.importorskip("selenium", reason="NOT TESTED in a browser: the extra `dev` is not installed")
chromium = pytest.importorskip("chromium", reason="benchmarks/ is not here")
if chromium.missing():
    pytest.skip(f"NOT TESTED in a browser: {chromium.missing()}", allow_module_level=True)
GOOD = [f"train/good/{number:02d}.png" for number in range(24)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    opened = chromium.open_browser(tmp_path_factory.mktemp("chromium") / "profile")
    yield opened
    opened.quit()


@pytest.fixture
def page(driver: Any, open_site: Callable[..., Site]) -> Iterator[Page]:
    site = open_site()
    driver.get(f"http://127.0.0.1:{site.port}/")
    chromium.set_screen(driver, 1440, 900)
    yield Page(driver, site)
    # Errors of the page's script and what its content policy refused; a 4xx answer may be what a test asks for.
    severe = [one["message"] for one in driver.get_log("browser") if one["level"] == "SEVERE"]
    assert [one for one in severe if "Failed to load resource" not in one] == []


class Page:
    """The page as it is seen."""

    def __init__(self, driver: Any, site: Site) -> None:
        self.driver, self.site = driver, site

    def text(self, selector: str) -> str:
        """Text that is visible; empty when there is none."""
        script = "const e = document.querySelector(arguments[0]); return e && e.checkVisibility() ? e.innerText : ''"
        return str(self.driver.execute_script(script, selector))

    def click(self, selector: str) -> None:
        found = wait_for(lambda: self.driver.find_elements("css selector", selector))
        wait_for(found[0].is_displayed)
        found[0].click()

    def fill(self, selector: str, text: str) -> None:
        found = self.driver.find_element("css selector", selector)
        found.clear()
        found.send_keys(text)

    def reads(self, selector: str, *words: str) -> None:
        wait_for(lambda: any(word in self.text(selector) for word in words))


def test_verdicts_alarm_and_what_was_rejected(page: Page) -> None:
    page.reads("#word", "WAITING")
    page.site.feed("test/good/00.png", "test/good/01.png")
    page.reads("#word", "GOOD")
    wait_for(lambda: page.driver.execute_script("return document.getElementById('live').naturalWidth === 36"))
    page.site.feed("test/blot/00.png")
    page.reads("#word", "REJECT")
    assert page.driver.execute_script("return document.body.dataset.state") == "reject"
    assert page.driver.execute_script("return document.getElementById('shape').getAttribute('href')") == "#shape-reject"
    assert page.driver.title.startswith("REJECT")
    page.click("#strip button.reject")
    page.reads("#detail-title", "REJECT at")
    wait_for(lambda: page.driver.execute_script("return document.getElementById('detail-map').naturalWidth > 0"))
    page.click("#detail .close")
    page.reads("#counts", "Frames")
    wait_for(lambda: page.text("#counts dd") == "3")


def test_another_recipe(page: Page) -> None:
    page.reads("#recipe", "part")
    page.click("#open-recipes")
    page.click("#recipe-list input[value=other]")
    page.click("#recipes button[type=submit]")
    page.reads("#recipe", "other")
    assert page.site.feed("test/good/00.png")[0]["recipe"] == "other"


def test_teach_a_part(page: Page) -> None:
    page.reads("#recipe", "part")
    page.click("#open-teach")
    page.fill("#teach [name=name]", "part")
    page.fill("#teach [name=frames]", "5")
    page.fill("#teach [name=every_s]", "0")
    page.click("#teach-start")
    page.reads("#teach-told", "there is a recipe 'part' already")
    page.fill("#teach [name=name]", "taught")
    page.click("#teach-start")
    page.reads("#teach-text", "let good parts pass, 0 of 5")
    page.site.feed(*GOOD[:5])
    page.reads("#recipe", "taught")
    assert page.site.get("/api/recipes")["running"] == "taught"


def test_this_was_fine_and_back(page: Page) -> None:
    page.site.feed("test/good/00.png", "test/blot/00.png")
    page.click("#strip button.reject")
    page.click("#fine")
    page.reads("#toast-text", "Taken into part as a good part")
    assert page.site.feed("test/blot/00.png")[0]["outcome"] == "accept"
    page.click("#toast-undo")
    page.reads("#toast-text", "part is as before")
    assert page.site.feed("test/blot/00.png")[0]["outcome"] == "reject"
    page.click("#open-recipes")
    page.reads("#history", "was taken back")
    page.click("#history button")
    page.reads("#toast-text", "has no edit to undo")


def test_an_old_verdict_is_never_shown_as_new(page: Page) -> None:
    page.site.feed("test/good/00.png")
    page.reads("#word", "GOOD")
    page.site.watch.reader.alarm = "frozen"
    page.reads("#word", "PICTURE FROZEN")
    page.site.watch.reader.alarm = ""
    page.site.watch.reader.slot.alarm = "lost: the stream ended"
    page.reads("#word", "CAMERA LOST")
    page.reads("#why", "the stream ended")
    page.reads("#cover", "The camera is lost")
    page.site.watch.reader.slot.alarm = ""
    page.reads("#word", "GOOD")
    page.site.close()
    page.reads("#word", "NO CONNECTION")
    assert page.driver.execute_script("return document.body.dataset.state") == "offline"
    page.site.start()
    page.reads("#word", "GOOD", "WAITING")


def test_the_token_is_asked_for_once(driver: Any, open_site: Callable[..., Site]) -> None:
    site = open_site(token=TOKEN)
    page = Page(driver, site)
    driver.get(f"http://127.0.0.1:{site.port}/")
    page.fill("#token", "wrong")
    page.click("button[type=submit]")
    page.reads("[role=alert]", "That is not the token")
    page.fill("#token", TOKEN)
    page.click("button[type=submit]")
    page.reads("#word", "WAITING")
    wait_for(lambda: page.text("#recipe") == "part")
    assert TOKEN not in str(driver.get_cookies())
    page.click("footer button")
    page.reads("label", "Token")


@pytest.mark.parametrize("width", [320, 390, 820, 1440])
def test_nothing_sticks_out_of_the_screen(page: Page, width: int) -> None:
    page.site.feed("test/good/00.png", "test/blot/00.png")
    page.click("#strip button")
    page.click("#detail .close")
    chromium.set_screen(page.driver, width, 844, phone=width < 500)
    wide = (
        f"return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('#strip') && "
        f"e.getBoundingClientRect().right > {width} + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert page.driver.execute_script(wide) == []
    fits = (
        "const word = document.getElementById('word'); word.textContent = arguments[0]; "
        "word.classList.toggle('long', arguments[0].length > 6); "
        "return [word.scrollWidth <= word.clientWidth, innerWidth]"
    )
    for word in ("REJECT", "WAITING", "NO CONNECTION", "PICTURE FROZEN", "NO VERDICT"):
        assert page.driver.execute_script(fits, word) == [True, width], word
    small = (
        "return [...document.querySelectorAll('button, .switch')].filter((e) => e.checkVisibility() && "
        "!e.classList.contains('link') && e.getBoundingClientRect().height < 43).map((e) => e.outerHTML)"
    )
    assert page.driver.execute_script(small) == [], "too small for a finger"


def test_the_watch_may_be_the_only_thing_that_answers(page: Page) -> None:
    page.reads("#recipe", "part")
    asked = page.driver.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
    assert asked and all(name.startswith((f"http://127.0.0.1:{page.site.port}/", "blob:")) for name in asked)
