"""The Cost explorer in a real browser, on the real product with the example company's two months."""

import re
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
ANSWER_BYTES = 80_000
TEXTS = (
    ".explore :is(h2, h3, p)", ".path :is(a, small, b)", ".bridge :is(b, p, a)", ".moves :is(b, .name)", ".legend span",
    ".explored :is(th, td)", ".explore .segmented label",
)  # fmt: skip


def settle(seen):
    """Wait until every part is there and nothing is under way."""
    expect(seen.page.locator(".explored tfoot tr")).to_have_count(1, timeout=60_000)
    expect(seen.page.locator(".bridge > li").first).to_be_visible(timeout=60_000)
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)


def usd(text: str | None) -> Decimal:
    """`$1,234.56` as a number."""
    return Decimal(re.sub(r"[$,]", "", text or "").replace("\N{MINUS SIGN}", "-"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("explore?v=1&and=model", theme=theme))
    expect(seen.page.locator("#explore-chart .barlayer .trace").first).to_be_attached()
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"explore-{theme}-1440x900.png", full_page=True)

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1440
    assert max(size for url, size in seen.got.items() if "_dash-update" in url) <= ANSWER_BYTES


def test_a_phone_shows_all_of_it_without_moving_sideways(visit):
    seen = settle(visit("explore?v=1&as=rank&and=model", width=390, height=844))
    expect(seen.page.locator(".ranks li").first).to_be_visible()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.screenshot(path=PICTURES / "explore-light-390x844.png", full_page=True)


def test_which_team_grew_and_why_is_two_clicks_away(visit):
    seen = settle(visit("explore"))
    first = seen.page.locator("#movers .moves").first.locator("li").first
    team, moved = first.locator(".name").inner_text(), first.locator("b").inner_text()
    first.locator("a").click()
    expect(seen.page.locator(".path")).to_contain_text(team)
    expect(seen.page.locator("#explored-title")).to_have_text("Spend by feature")
    settle(seen)
    said = seen.page.locator("#why-words").inner_text()
    assert moved.lstrip("+\N{MINUS SIGN}") in said
    ends = [usd(one.get_attribute("title")) for one in seen.page.locator(".bridge .whole > b").all()]
    effects = [usd(one.get_attribute("title")) for one in seen.page.locator(".bridge > li:not(.whole) > b").all()]
    assert abs(ends[0] + sum(effects) - ends[1]) < Decimal("0.2")
    assert seen.said == []


def test_clicks_go_down_to_single_calls_and_back_again(visit):
    seen = settle(visit("explore?v=1&p=7d&as=line"))
    for by in ("Feature", "Model", "Deployment"):
        seen.page.locator(".explored tbody th a").first.click()
        expect(seen.page.locator(".explored thead th").first).to_have_text(by)
        settle(seen)
    assert query(seen)["by"] == ["deployment"]
    assert query(seen)["as"] == ["line"]
    seen.page.get_by_role("link", name="Show the calls").click()
    expect(seen.page.locator(".calls tbody tr").first).to_be_visible(timeout=60_000)
    assert {"team", "feature", "model"} <= set(query(seen))
    seen.page.go_back()
    settle(seen)
    seen.page.get_by_role("link", name="Everything").click()
    expect(seen.page.locator(".path ol li")).to_have_count(1)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "as": ["line"]}


def test_controls_write_the_address_and_what_opens_beside_asks_for_itself_alone(visit, product):
    seen = settle(visit("explore?v=1&p=7d&basis=usage"))
    seen.page.locator("#explore-as label", has_text="Ranked").click()
    expect(seen.page.locator(".ranks li").first).to_be_visible()
    assert query(seen)["as"] == ["rank"]
    settle(seen)
    asked = []
    seen.page.on("request", lambda request: asked.append(request) if "_dash-update" in request.url else None)
    seen.page.locator(".explored tbody td a.figure").first.click()
    expect(seen.page.get_by_role("dialog")).to_contain_text("What it is", timeout=60_000)
    outputs = {one.post_data_json["output"] for one in asked} - {"view-alerts.data"}
    assert outputs == {"explore-drawer.children"} or len(outputs) > 2  # or the clock came in between
    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    menu = seen.page.locator("#explore-export a").all()
    hrefs = [one.get_attribute("href") or "" for one in menu]
    assert any("format=csv" in href and "group_by=team" in href and "basis=usage" in href for href in hrefs)


def test_a_hostile_name_is_a_name(visit, hostile):
    seen = visit("explore?v=1&p=7d&top=8")
    expect(seen.page.locator(".explored tbody")).to_contain_text(hostile, timeout=60_000)
    seen.quiet()
    assert seen.said == []
