"""Unit economics and Caching in a real browser, on the real product with the example company's two months."""

from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from millicent.dashboard import format as fmt

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
TEXTS = (".ranked :is(th, td, small, a)", ".kpi :is(h2, strong, span)", ".panel-head p", ".legend span", ".tag")


def settle(seen):
    """Wait until every part is there and nothing is under way."""
    expect(seen.page.locator(".kpis .kpi strong")).to_have_count(6)
    for table in seen.page.locator(".ranked").all():
        expect(table.locator("tbody tr").first).to_be_visible()
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["units", "caching"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, name, theme):
    seen = settle(visit(name, theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"{name}-{theme}-1440x900.png", full_page=True)

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) == 0 or contrast(seen, text) >= 4.5, text


def test_a_call_costs_what_the_api_says_and_a_unit_is_drawn_when_it_is_clicked(visit, product):
    seen = settle(visit("units?v=1&p=7d&vs=none"))
    (told,) = product.query(measures="cost_per_call_usd", period="7d")
    shown = seen.page.locator("#kpi-cost_per_call_usd").inner_text()
    assert shown[:4] == fmt.usd(Decimal(told["cost_per_call_usd"]))[:4]

    seen.page.get_by_role("link", name="resolved ticket").click()
    expect(seen.page.locator("#each-title")).to_have_text("What one resolved ticket costs")
    assert query(seen)["in"] == ["resolved ticket"]
    expect(seen.page.locator(".units-list .selected")).to_contain_text("resolved ticket")

    seen.page.locator("#units-by label", has_text="Customer").click()
    expect(seen.page.locator("#calls-spread-body thead th").first).to_have_text("Customer")
    seen.page.locator("#calls-spread-body").get_by_role("link", name="globex").click()
    expect(seen.page.locator("#calls-spread-body tbody tr")).to_have_count(1)
    assert query(seen)["customer"] == ["globex"]
    assert seen.said == []


def test_a_target_changes_what_was_missed_alone_and_a_model_filters(visit):
    seen = settle(visit("caching?v=1&p=7d"))
    before = seen.page.locator("#caching-kpis").inner_text()
    seen.page.locator("#caching-target label", has_text="80%").click()
    expect(seen.page.locator("#missed-body tbody tr td:nth-of-type(2)").first).to_have_text("80%")
    assert query(seen)["in"] == ["80"]
    assert seen.page.locator("#caching-kpis").inner_text() == before

    seen.page.locator("#homes-body").get_by_role("link", name="claude-sonnet-4-5").click()
    expect(seen.page.locator("#homes-body tbody tr")).to_have_count(1)
    expect(seen.page.locator("#homes-body tbody tr")).to_contain_text("pays")
    assert seen.said == []


def test_on_a_phone_nothing_is_wider_than_the_screen(visit):
    for name in ("units", "caching"):
        seen = settle(visit(name, width=390, height=844))
        assert seen.page.evaluate("document.documentElement.scrollWidth") == 390
