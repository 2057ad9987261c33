"""The page of launch.show in headless Chromium, from the disk."""

import os

import pytest

from launch import show
from tests.colbench_env.chromium import chromium_or_skip
from tests.launch.show_rows import DRAWN, everything, write

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    path = chromium_or_skip()
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
        with playwright.chromium.launch(executable_path=path, args=arguments) as found:
            yield found


@pytest.fixture
def page(browser, in_process, tmp_path):
    """A page of everything, opened; at the end nothing may have been said on its console."""
    path = tmp_path / "show.html"
    assert in_process(show.main, *everything(tmp_path), f"--output={path}").status == 0
    said, opened = [], browser.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    opened.url_of_file = path.as_uri()
    opened.goto(path.as_uri())
    opened.wait_for_selector("body[data-ready='episodes/1']")
    yield opened
    opened.close()
    assert said == []


def ready(page, place):
    page.wait_for_selector(f"body[data-ready='{place}']")


def counted(page, selector, number):
    """Wait until the page has so many of them (no text is evaluated in it: its policy forbids that)."""
    from playwright import sync_api

    sync_api.expect(page.locator(selector)).to_have_count(number)


def test_keys_walk_through_the_list_and_the_tabs(page):
    page.keyboard.press("j")
    ready(page, "episodes/2")
    assert page.url.endswith("#episodes/2")
    page.keyboard.press("k")
    ready(page, "episodes/1")
    page.keyboard.press("2")
    assert page.locator("#tests tbody tr").first.inner_text().split() == ["test1", "f(1)", "pass", "3", "3"]
    assert page.locator("pre.code .c-k").first.inner_text() == "def"
    page.keyboard.press("3")
    assert "7 tokens, 4 counted" in page.locator(".counts").inner_text()
    assert page.locator(".tokens .prefix").count() == 1
    assert page.locator(".tokens .counted").count() == 4
    page.click("#by-ratios")
    assert page.locator(".tokens .up2").first.inner_text() == "‹11›"  # 0.4
    page.select_option("#token-row", label="turn 1, pair 2")
    assert page.locator(".tokens").count() == 2  # chosen and rejected
    assert page.locator(".tokens .up3").inner_text() == "‹31›" and page.locator(".tokens .down4").inner_text() == "‹30›"
    page.click("#by-turns")
    assert page.locator(".tokens .counted.t1").count() == 4
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_turns_show_advantage_candidates_and_picks(page):
    assert page.locator(".said.agent").count() == 2
    assert page.locator(".advantage").first.inner_text().strip() == "· advantage +0.250"
    page.keyboard.press("c")
    rows = page.locator(".candidates li")
    assert rows.count() == 3
    assert "+0.300" in rows.nth(0).inner_text() and "chosen ×2" in rows.nth(0).inner_text()
    assert "rejected ×2" in rows.nth(2).inner_text()
    assert rows.nth(2).locator(".tok.down4").inner_text() == "‹30›"  # -0.9
    assert "They hide it." in page.locator(".thought").inner_text()


def test_the_list_is_filtered_and_searched(page):
    page.select_option("#verdict", label="failed (1)")
    assert page.locator("#rows a").count() == 1
    page.select_option("#verdict", "")
    page.keyboard.press("/")
    page.keyboard.type("503 endpoint")
    counted(page, "#rows a", 1)
    ready(page, "episodes/4")
    assert "The human failed: 503" in page.locator("p.broken").inner_text()
    marks = page.locator(".said.leaks .mark").all_inner_texts()
    assert marks == ["gives the solution away: definition", "asked again 1 time"]


def listed(page):
    """The places of the rows in the list, from the top."""
    return [row.get_attribute("href").removeprefix("#") for row in page.locator("#rows a").all()]


def test_what_is_shown_follows_the_first_hit_and_stays_when_nothing_is_searched_any_more(page):
    entries = page.evaluate("history.length")
    page.fill("#search", "other task")
    ready(page, "episodes/2")
    assert page.url.endswith("#episodes/2") and listed(page) == ["episodes/2"]
    assert page.locator("#rows a[aria-current=true]").count() == 1
    page.fill("#search", "which fee")
    ready(page, "episodes/1")
    page.fill("#search", "nowhere")
    counted(page, "#rows a", 0)
    page.fill("#search", "other")
    ready(page, "episodes/2")
    page.fill("#search", "")
    counted(page, "#rows a", 5)
    assert page.url.endswith("#episodes/2")
    page.select_option("#verdict", label="solved (1)")
    ready(page, "episodes/1")
    assert page.evaluate("history.length") == entries


def test_the_list_is_sorted_by_score_and_by_turns(page):
    rows = listed(page)
    assert rows == ["episodes/1", "episodes/2", "episodes/3", "episodes/4", "baseline/1"]
    page.select_option("#sort", "score")  # 1.0, 0.0, none, none, 0.5
    ready(page, "episodes/2")
    assert listed(page) == ["episodes/2", "baseline/1", "episodes/1", "episodes/3", "episodes/4"]
    page.select_option("#sort", "-score")
    ready(page, "episodes/1")
    assert listed(page) == ["episodes/1", "baseline/1", "episodes/2", "episodes/3", "episodes/4"]
    page.keyboard.press("Escape")
    page.locator("#list").focus()
    page.keyboard.press("j")
    ready(page, "baseline/1")
    page.select_option("#sort", "turns")  # 2, 1, 2, 2, 2
    ready(page, "episodes/2")
    assert listed(page) == ["episodes/2", "episodes/1", "episodes/3", "episodes/4", "baseline/1"]
    page.select_option("#sort", "-turns")
    assert listed(page)[-1] == "episodes/2"
    page.select_option("#sort", "")
    assert listed(page) == rows


def test_a_permalink_opens_its_episode_and_the_baseline_is_one_key_away(page):
    page.goto(page.url_of_file + "#episodes/3")
    ready(page, "episodes/3")
    page.keyboard.press("2")
    assert "not graded" in page.locator("#tests").inner_text()
    page.goto(page.url_of_file + "#episodes/1")
    ready(page, "episodes/1")
    page.keyboard.press("b")
    ready(page, "baseline/1")
    page.goto(page.url_of_file + "#episodes/99")
    page.wait_for_selector("text=There is no episode episodes/99")


def test_the_reference_is_behind_a_switch_that_says_the_policy_never_sees_it(page):
    assert page.locator("#privileged").count() == 0
    page.check("#reference")
    text = page.locator("#privileged").inner_text()
    assert "the policy never sees this" in text and "return x + 2" in text and "fee: two" in text
    page.keyboard.press("j")
    ready(page, "episodes/2")
    assert page.locator("#privileged").count() == 1
    page.uncheck("#reference")
    assert page.locator("#privileged").count() == 0


def test_pages_are_seen_side_by_side_and_the_reference_behind_the_switch(browser, in_process, tmp_path):
    path = tmp_path / "show.html"
    rows = write(tmp_path / "rows.jsonl", DRAWN)
    assert in_process(show.main, f"--trajectories={rows}", f"--output={path}").status == 0
    page = browser.new_page()
    page.goto(path.as_uri())
    ready(page, "episodes/1")
    loaded = "[...document.images].every((one) => one.complete && one.naturalWidth === 1) && document.images.length"
    assert page.evaluate(loaded) == 1  # after turn 1
    page.keyboard.press("2")
    assert page.locator("h2").first.inner_text() == "Pages, similarity 0.830"
    assert page.evaluate(loaded) == 1 and "key r" in page.locator(".pictures").inner_text()
    page.keyboard.press("r")
    counted(page, "img", 2)
    assert page.evaluate(loaded) == 2
    page.close()


def test_hostile_text_is_text(page):
    page.goto(page.url_of_file + "#episodes/2")
    ready(page, "episodes/2")
    assert "</script><script>" in page.locator(".said.agent").inner_text()
    page.keyboard.press("2")
    assert "<img src=x onerror" in page.locator("#tests").inner_text()
    assert page.evaluate("[window.hit === undefined, document.images.length, document.scripts.length]") == [True, 0, 4]
