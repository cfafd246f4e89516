"""The Overview in a real browser, on the real product with the example company's two months."""

import re
from decimal import Decimal, localcontext
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from millicent.dashboard import format as fmt

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
MOVED = """() => new Promise((done) => {
    const sum = (list) => done(list.getEntries().reduce((all, entry) => all + entry.value, 0));
    new PerformanceObserver(sum).observe({type: "layout-shift", buffered: true});
    setTimeout(() => done(0), 1000);
})"""
"""How much of what was seen has moved by itself, as browsers measure it."""
FIRST_VISIT_BYTES, ANSWER_BYTES = 1_100_000, 80_000


def settle(seen):
    """Wait until every number is there and nothing is under way."""
    expect(seen.page.locator("#kpis .kpi strong")).to_have_count(6)
    expect(seen.page.locator(".teams tfoot tr")).to_have_count(1)
    expect(seen.page.locator("#chart g.trace")).not_to_have_count(0)
    return seen.quiet()


def spend(seen) -> str:
    return seen.page.locator("#kpi-spend_usd").get_attribute("title") or ""


def exported(seen) -> dict[str, str]:
    """What the Export link asks the API for."""
    asked = parse_qs(urlsplit(seen.page.locator("#export").get_attribute("href")).query)
    return {key: ",".join(values) for key, values in asked.items()}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_and_asks_nobody_else(visit, theme):
    seen = settle(visit(theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"overview-{theme}-1440x900.png")

    assert seen.said == []
    assert seen.foreign == []
    assert seen.page.evaluate("document.documentElement.dataset.theme") == theme


def test_the_totals_are_those_of_the_api(visit, product, wait_for):
    seen = settle(visit("?v=1&vs=none"))

    def agree() -> bool:
        """The hour that runs accrues idle, so both are asked until neither moved in between."""
        seen.page.reload()
        settle(seen)
        asked = exported(seen)
        bounds = {key: asked[key] for key in ("start", "end", "basis")}
        (total,) = product.query(measures="spend_usd", **bounds)
        teams = product.query(measures="spend_usd", group_by="team", **bounds)
        with localcontext(prec=60):
            parts = sum(Decimal(row["spend_usd"]) for row in teams if row["spend_usd"] is not None)
        row = seen.page.locator(".teams tfoot td").first.get_attribute("title")
        return Decimal(total["spend_usd"]) == parts and fmt.usd_exact(parts) == spend(seen) == row

    wait_for(agree)


def test_a_filter_is_an_address_that_can_be_shared_and_undone(visit):
    seen = settle(visit("?v=1&p=7d"))
    everything = spend(seen)

    seen.page.locator(".teams tbody a", has_text="Research").click()
    expect(seen.page.locator("#kpi-spend_usd")).not_to_have_attribute("title", everything)
    settle(seen)
    assert parse_qs(urlsplit(seen.page.url).query) == {"v": ["1"], "p": ["7d"], "team": ["Research"]}
    expect(seen.page.locator("#team")).to_contain_text("Research")
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    narrowed = seen.page.locator(".teams tbody th").all_inner_texts()

    other = settle(visit("?" + urlsplit(seen.page.url).query))
    assert spend(other) == spend(seen)
    assert other.page.locator(".teams tbody th").all_inner_texts() == narrowed == ["Research"]

    seen.page.go_back()
    expect(seen.page.locator(".teams tbody tr")).not_to_have_count(1)
    expect(seen.page.locator("#team")).to_contain_text("Team: all")


def test_the_unattributed_share_leads_to_the_calls_behind_it(visit):
    seen = settle(visit("?v=1&p=7d"))
    pill = seen.page.locator("#unattributed")
    assert 0 < float(pill.locator("b").inner_text().removesuffix("%")) < 10
    pill.click()
    expect(seen.page.locator(".teams tbody th")).to_have_text(["Unattributed"])
    expect(pill.locator("b")).to_have_text("100%")
    assert parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)["team"] == [""]
    settle(seen)
    pill.click()
    expect(seen.page.locator(".teams tbody th")).not_to_have_count(1)


def test_switches_write_the_address_and_ask_only_for_what_they_change(visit):
    seen = settle(visit())
    before = len(seen.asked)
    seen.page.locator("#cut label", has_text="Cost type").click()
    expect(seen.page.locator("#legend")).to_contain_text("Own hardware, busy")
    settle(seen)
    assert urlsplit(seen.page.url).query == "v=1&by=cost"
    asked = [url for url in seen.asked[before:] if "_dash-update-component" in url]
    assert len(asked) in {1, 2, 7, 8}  # 6 more: the clock; 1: how many alerts there are

    seen.page.locator("#range label", has_text="MTD").click()
    expect(seen.page.locator("#words")).to_contain_text("compared with 1 ")
    assert urlsplit(seen.page.url).query == "v=1&p=mtd&by=cost"


def test_several_teams_are_chosen_from_the_list(visit, choose):
    seen = settle(visit("?v=1&p=7d"))
    choose(seen.page, "#team", "Search", "Assistants")
    expect(seen.page.locator(".teams tbody tr")).to_have_count(2)
    assert parse_qs(urlsplit(seen.page.url).query)["team"] == ["Search", "Assistants"]


def test_a_bar_leads_to_its_team(visit):
    seen = settle(visit("?v=1&p=7d"))
    bar = seen.page.locator("#chart .barlayer .trace").first.locator("path").nth(2)
    box = bar.bounding_box()
    seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    assert "team" in parse_qs(urlsplit(seen.page.url).query)


def test_a_hostile_name_is_only_a_name(visit, hostile):
    seen = settle(visit("?v=1&p=7d"))
    row = seen.page.locator(".teams tbody a").get_by_text(hostile, exact=True)
    expect(row).to_have_count(1)
    row.click()
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    settle(seen)
    assert parse_qs(urlsplit(seen.page.url).query)["team"] == [hostile]
    assert seen.page.locator(".legend li").first.inner_text() == hostile
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.said == []


def test_nothing_found_says_so_and_leads_out(visit):
    seen = visit("?v=1&team=nobody")
    expect(seen.page.locator(".empty")).to_contain_text("No calls match")
    seen.page.get_by_text("Clear the filters").click()
    settle(seen)
    assert urlsplit(seen.page.url).query == ""


def test_the_theme_is_kept_and_costs_no_request(visit):
    seen = settle(visit())
    own = ("_dash-update", "/assets/icon.svg")  # the clock's, and the tab's own picture, which browsers ask for late
    before = [url for url in seen.asked if not any(part in url for part in own)]
    seen.page.locator("[data-action=theme]").click()
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert [url for url in seen.asked if not any(part in url for part in own)] == before
    seen.page.reload()
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_keyboard_reaches_everything_and_escape_closes(visit):
    seen = settle(visit())
    seen.page.keyboard.press("Tab")
    expect(seen.page.locator(".skip")).to_be_focused()
    summary = seen.page.locator(".how summary").first
    summary.focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator(".how .popover").first).to_contain_text("depends on the cost basis")
    seen.page.keyboard.press("Escape")
    expect(seen.page.locator(".how .popover").first).to_be_hidden()
    expect(summary).to_be_focused()


def test_the_chart_is_a_table_too(visit):
    seen = settle(visit("?v=1&p=7d"))
    seen.page.locator("#chart-as-table").click()
    rows = seen.page.locator("#chart-table tbody tr")
    expect(rows.filter(has_not_text="to $")).to_have_count(7)
    expect(rows.filter(has_text="to $")).not_to_have_count(0)
    assert seen.page.locator("#chart-table thead th").all_inner_texts()[-2:] == ["Total", "Forecast"]
    seen.page.locator("#burn-as-table").click()
    expect(seen.page.locator("#burn-table thead th")).to_have_text(["Day", "Left", "Forecast"])


def test_the_first_page_says_what_the_month_cost_and_whether_it_stays_in_budget(visit, product):
    seen = settle(visit())
    held = httpx.get(f"{product.url}api/v1/budgets", timeout=30).json()["budgets"]
    (company,) = (one for one in held if one["name"] == "Company")
    over = [one["name"] for one in held if one["standing"]["state"] in {"over", "will_be_over"}]
    expect(seen.page.locator(".kpi.outlook")).to_contain_text("so far")
    expect(seen.page.locator(".kpi.outlook")).to_contain_text(f"of {fmt.usd(Decimal(company['amount']))} budget")
    expect(seen.page.locator("#budgets-words")).to_contain_text("will be kept")
    assert {"Code completion", "Code Copilot"} <= set(over)
    expect(seen.page.locator("#budgets-aside")).to_contain_text(f"{len(over)} over")
    listed = seen.page.locator("#budgets-body li")
    expect(listed.first).to_contain_text(re.compile("|".join(map(re.escape, over))))
    listed.filter(has_text="Code Copilot").locator("a").click()
    expect(seen.page.locator("#budgets-words")).to_contain_text("Code Copilot")
    assert parse_qs(urlsplit(seen.page.url).query)["team"] == ["Code Copilot"]


def test_nothing_moves_when_the_numbers_come(visit):
    seen = settle(visit())
    moved = seen.page.evaluate(MOVED)
    assert moved <= 0.1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = settle(visit(theme=theme, width=390, height=844))
    seen.page.screenshot(path=PICTURES / f"overview-{theme}-390x844.png", full_page=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_first_visit_is_small(visit):
    seen = settle(visit())
    assert sum(seen.got.values()) <= FIRST_VISIT_BYTES
    assert max(size for url, size in seen.got.items() if "_dash-" in url and "suites" not in url) <= ANSWER_BYTES
