"""The Budgets page in a real browser, on the real product with the example company's two months."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
ANSWER_BYTES = 80_000
TEXTS = (
    ".plan :is(th, td, small, b, .tag, .delta)", "#one :is(dt, dd, small, p, .pill, b, th, td)", ".to-keep b",
    ".periods small", ".revisions :is(b, span, small, li)", "#warnings :is(li, a, h3)", ".tile :is(h2, strong, span)",
)  # fmt: skip
FORM_TEXTS = (".budgeting :is(legend, label span, .quiet, .button, small)", ".trial :is(h3, p, th, td, .tag)")


def settle(seen):
    """Wait until every part is there and nothing is under way."""
    expect(seen.page.locator("#limits-kpis .kpi strong")).to_have_count(6)
    for part in ("plan", "one", "pasts", "revisions", "warnings"):
        expect(seen.page.locator(f"#{part}-body > *").first).to_be_attached()
    expect(seen.page.locator("#limit-burn-chart .scatterlayer .trace").first).to_be_attached()
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)


def row(seen, name: str):
    return seen.page.locator(".plan tbody tr").filter(has=seen.page.get_by_text(name, exact=True))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("budgets", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"budgets-{theme}-1440x900.png", full_page=True)

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1440
    assert max(size for url, size in seen.got.items() if "_dash-update" in url) <= ANSWER_BYTES


def test_a_click_opens_a_budget_and_a_filter_lists_what_is_over(visit):
    seen = settle(visit("budgets"))
    expect(seen.page.locator("#one-title")).to_have_text("Company")
    expect(row(seen, "Company")).to_have_class("open")
    row(seen, "Code Copilot").locator("a").click()
    expect(seen.page.locator("#one-title")).to_have_text("Code Copilot")
    expect(row(seen, "Code Copilot")).to_have_class("part open")
    opened = query(seen)["budget"]
    expect(seen.page.locator("#one-words")).to_contain_text("team Code Copilot")
    expect(seen.page.locator("#revisions-body li").first).to_contain_text("v1")

    seen.page.locator("#limits-show input[value=over]").click()
    expect(row(seen, "Search")).to_have_count(0)
    expect(row(seen, "Code Copilot")).to_have_count(1)
    assert (query(seen)["show"], query(seen)["budget"]) == (["over"], opened)
    seen.page.locator("#limits-search").fill("nobody answers for this")
    expect(seen.page.locator("#plan-body")).to_contain_text("No budget matches")
    seen.page.get_by_role("link", name="Show all").click()
    expect(row(seen, "Search")).to_have_count(1)
    expect(seen.page.locator("#limits-search")).to_have_value("")
    seen.page.locator("#limit-burn-as-table").click()
    expect(seen.page.locator("#limit-burn-table thead")).to_contain_text("Left")
    assert seen.said == []


def test_a_budget_is_suggested_tried_set_changed_and_ended(visit, contrast):
    seen = settle(visit("budgets?v=1&q=Globex"))
    seen.page.get_by_role("link", name="New budget").click()
    form = seen.page.locator(".budgeting form")
    form.locator("[name=name]").fill("Globex")
    form.locator("[name='scope.customer']").fill("globex")
    fills = form.locator("[data-fill]")
    expect(fills).to_have_count(3)
    expect(seen.page.locator("#limits-trial")).to_contain_text("Write a limit")
    fills.nth(1).click()
    expect(seen.page.locator("#limits-trial")).to_contain_text("Its limit would have been reached in")
    assert float(form.locator("[name=amount]").input_value()) > 0
    for text in FORM_TEXTS:
        assert contrast(seen, text) >= 4.5, text
    form.locator("[name=amount]").fill("1")
    expect(seen.page.locator("#limits-trial .delta.bad").first).to_contain_text("reached in")
    form.get_by_role("button", name="Set the budget").click()
    expect(seen.page.locator("#limits-answer")).to_contain_text("Globex may come to $1.00 each month")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(row(seen, "Globex")).to_contain_text("ran out")
    expect(seen.page.locator("#one-title")).to_have_text("Globex")

    seen.page.get_by_role("link", name="Change", exact=True).click()
    expect(form.locator("[name='scope.customer']")).to_have_value("globex")
    form.locator("[name=amount]").fill("90000")
    form.locator("[name=note]").fill("A whole account")
    form.get_by_role("button", name="Save the next version").click()
    expect(seen.page.locator("#revisions-body")).to_contain_text("Limit $1.00 → $90.0k")
    expect(seen.page.locator("#revisions-body")).to_contain_text("A whole account")
    expect(row(seen, "Globex")).to_contain_text("will be kept")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)

    seen.page.get_by_role("link", name="Change", exact=True).click()
    form.get_by_text("End this budget").click()
    form.get_by_role("button", name="End it now").click()
    expect(seen.page.locator("#limits-answer")).to_contain_text("holds no more")
    expect(seen.page.locator("#plan-body")).to_contain_text("No budget matches")
    assert "budget" not in query(seen)
    assert seen.said == []


def test_what_is_wrong_is_said_while_it_is_typed_and_nothing_is_set(visit):
    seen = settle(visit("budgets"))
    opener = seen.page.get_by_role("link", name="New budget")
    opener.click()
    form = seen.page.locator(".budgeting form")
    form.locator("[name=name]").fill("<img src=x onerror=alert(1)>")
    form.locator("[name=amount]").fill("a lot")
    expect(seen.page.locator("#limits-trial .wrong")).to_contain_text("'a lot' is no number")
    form.get_by_role("button", name="Set the budget").click()
    expect(seen.page.locator("#limits-answer .bad")).to_contain_text("is no number")
    expect(form.locator("[name=amount]")).to_have_value("a lot")
    form.locator("[name=period]").select_option("rolling")
    expect(form.locator("[name=rolling_days]")).to_be_visible()
    expect(form.locator("[name=rollover]")).to_be_hidden()
    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()
    expect(seen.page.locator(".plan tbody tr", has_text="onerror")).to_have_count(0)
    assert seen.said == []


def test_on_a_phone_the_budget_that_is_chosen_comes_into_sight(visit):
    seen = settle(visit("budgets", width=390, height=844))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / "budgets-light-390x844.png", full_page=True)
    row(seen, "Search").locator("a").click()
    expect(seen.page.locator("#one-title")).to_have_text("Search")
    expect(seen.page.locator("#one")).to_be_in_viewport()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.get_by_role("link", name="Change", exact=True).click()
    expect(seen.page.locator(".budgeting [name=amount]")).to_be_visible()
    assert seen.page.locator(".drawer section").evaluate("(one) => one.scrollWidth") <= 390
    expect(seen.page.get_by_role("button", name="Save the next version")).to_be_in_viewport()
    assert seen.said == []
