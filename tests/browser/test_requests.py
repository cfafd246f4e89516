"""The Requests page in a real browser: the dearest calls, what is not counted and why, and one call opened."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
PAGE = 50
RETOLD = ".calls tr:has(td.notes .tag) th a"
"""The call that other spans told of too; it alone has flags."""


def settle(seen, rows: int = PAGE):
    """Wait until the calls are there and nothing is under way."""
    expect(seen.page.locator(".calls tbody tr")).to_have_count(rows)
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query)


def costs(seen) -> list[str]:
    return seen.page.locator(".calls .cost .amount").all_inner_texts()


def drawer(seen):
    found = seen.page.get_by_role("dialog")
    expect(found).to_be_visible()
    return found


TEXTS = (
    ".calls :is(td, th)", ".uncounted :is(td, th, .why, .there)", ".tag", ".status", ".reasons *", ".switch",
    ".drawer :is(p, dt, dd, th, td, small, b, a, li, h2, h3, button)",
)  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("requests?v=1&p=7d&cost=list&all=1", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"requests-{theme}-1440x900.png")
    seen.page.locator(RETOLD).click()
    expect(drawer(seen)).to_contain_text("Also told by (2)")
    seen.quiet().page.screenshot(path=PICTURES / f"requests-call-{theme}-1440x900.png")

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text


def test_the_dearest_calls_come_first_as_the_api_has_them(visit, product):
    seen = settle(visit("requests?v=1&p=7d"))
    export = seen.page.locator("#requests-export").get_attribute("href")
    told = httpx.get(product.url.rstrip("/") + export, timeout=30).json()["calls"]
    opened = seen.page.locator(".calls tbody th a").evaluate_all("links => links.map(link => link.id)")
    assert opened == [f"call-{call['trace_id']}.{call['span_id']}" for call in told]
    assert seen.page.locator("th[aria-sort=descending]").inner_text().startswith("Cost")


def test_newest_first_and_the_next_page_are_addresses(visit):
    seen = settle(visit("requests?v=1&p=7d"))
    dearest = seen.page.locator(".calls tbody th a").first.get_attribute("id")
    seen.page.get_by_role("link", name="Time (UTC)").click()
    expect(seen.page.locator("th[aria-sort=descending]")).to_contain_text("Time")
    first = settle(seen).page.locator(".calls tbody th a").first.get_attribute("id")
    assert query(seen) == {"v": ["1"], "p": ["7d"], "sort": ["time"]}

    seen.page.get_by_role("link", name="Next 50, older").click()
    expect(seen.page.get_by_role("link", name="First page")).to_be_visible()
    second = settle(seen).page.locator(".calls tbody th a").evaluate_all("links => links.map(link => link.id)")
    assert first not in second
    assert len(set(second)) == PAGE

    other = settle(visit("requests?" + urlsplit(seen.page.url).query))
    assert other.page.locator(".calls tbody th a").evaluate_all("links => links.map(link => link.id)") == second
    seen.page.go_back()
    seen.page.go_back()
    expect(seen.page.locator(f'[id="{dearest}"]')).to_be_visible()
    assert query(seen) == {"v": ["1"], "p": ["7d"]}


def test_a_filter_and_the_cost_shown_write_the_address_and_go_back_to_the_first_page(visit, choose):
    seen = settle(visit("requests?v=1&p=7d"))
    seen.page.get_by_role("link", name="Next 50").click()
    expect(seen.page.get_by_role("link", name="First page")).to_be_visible()
    choose(seen.page, "#requests-team", "Research")
    expect(seen.page.locator(".calls .team", has_text="Research")).to_have_count(PAGE)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "team": ["Research"]}
    seen.page.locator("#requests-cost label", has_text="List").click()
    expect(seen.page.locator("#requests-cost label:has(:checked)")).to_contain_text("List")
    settle(seen)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "cost": ["list"], "team": ["Research"]}
    expect(seen.page.locator("#requests-export")).to_have_attribute("href", re.compile("order=-list_cost_usd"))


def test_the_switch_shows_what_is_not_counted_with_the_reason_and_where_it_counts(visit):
    seen = settle(visit("requests?v=1&p=7d&cost=list"))
    assert seen.page.locator(".uncounted").count() == 0
    switch = seen.page.get_by_role("switch", name="Show calls that are not counted")
    assert switch.get_attribute("aria-checked") == "false"
    switch.focus()
    seen.page.keyboard.press("Space")
    expect(seen.page.locator(".uncounted")).to_have_count(2)
    expect(switch).to_have_attribute("aria-checked", "true")
    assert query(seen) == {"v": ["1"], "p": ["7d"], "cost": ["list"], "all": ["1"]}
    expect(seen.page.locator(".reasons")).to_contain_text("2 rows are kept but not counted")

    row = seen.page.locator(".uncounted", has_text="same provider response as the call that counts")
    counts = seen.page.locator(RETOLD).get_attribute("id").removeprefix("call-")
    row.get_by_role("link", name="counted there").last.click()
    expect(drawer(seen)).to_contain_text("Also told by (2)")
    assert query(seen)["call"] == [counts]

    drawer(seen).get_by_role("link", name="vllm").click()
    expect(drawer(seen)).to_contain_text("Not counted: the engine's side of a call that counts")
    drawer(seen).get_by_role("link", name="Open the row that counts").click()
    expect(drawer(seen)).to_contain_text("Also told by (2)")


def test_an_opened_call_tells_its_cost_its_flags_its_counters_and_its_tags(visit, product):
    seen = settle(visit("requests?v=1&p=7d&cost=list"))
    seen.page.locator(RETOLD).click()
    opened = drawer(seen)
    expect(opened).to_contain_text("whether input includes the cache was not told; the rule of its dialect was taken.")
    expect(opened.locator(".raw")).to_contain_text("1234")
    expect(opened.locator(".raw")).to_contain_text("<b>bold</b>")
    assert opened.locator(".raw b, i:not([class])").count() == 0
    for tag, where in (("customer", "from a span above it"), ("environment", "on the service that sent it"),
                       ("feature", "by a rule of yours"), ("team", "on the call itself")):  # fmt: skip
        expect(opened.locator(".tags tr", has_text=tag)).to_contain_text(where)
    trace, span = query(seen)["call"][0].split(".")
    lines = httpx.get(f"{product.url}api/v1/explain/{trace}/{span}", timeout=30).json()["lines"]
    for line in lines:
        if line["step"] == "list price":
            expect(opened).to_contain_text(line["what"])
            expect(opened).to_contain_text(line["value"])
    assert json.loads(httpx.get(f"{product.url}api/v1/calls/{trace}/{span}").text)["span_id"] == span

    opened.get_by_role("link", name="All calls of this trace").click()
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    settle(seen, 3)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "cost": ["list"], "sort": ["time"], "all": ["1"], "trace": [trace]}
    seen.page.get_by_role("link", name="Trace").click()
    settle(seen)


def test_ids_are_copied(visit):
    seen = visit("requests")
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    settle(seen).page.locator(".calls tbody th a").first.click()
    trace, _ = drawer(seen) and query(seen)["call"][0].split(".")
    drawer(seen).get_by_role("button", name="Copy trace").click()
    expect(seen.page.locator("#said")).to_have_text("Copy trace: done")
    assert seen.page.evaluate("navigator.clipboard.readText()") == trace


def test_the_keyboard_opens_a_call_escape_closes_it_and_focus_comes_back(visit):
    seen = settle(visit("requests?v=1&p=7d"))
    row = seen.page.locator(".calls tbody th a").nth(2)
    row.focus()
    seen.page.keyboard.press("Enter")
    expect(drawer(seen)).to_be_focused()
    expect(seen.page.locator(".calls tr.open")).to_have_count(1)
    seen.page.keyboard.press("Tab")
    expect(drawer(seen).get_by_role("link", name="Close")).to_be_focused()
    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(row).to_be_focused()
    expect(seen.page.locator(".calls tr.open")).to_have_count(0)
    assert query(seen) == {"v": ["1"], "p": ["7d"]}


def test_a_hostile_name_is_only_a_name(visit, hostile, choose):
    seen = settle(visit("requests?v=1&p=7d&sort=time"), PAGE)
    choose(seen.page, "#requests-team", hostile)
    settle(seen, 1)
    expect(seen.page.locator(".calls .team")).to_have_text(hostile)
    assert query(seen)["team"] == [hostile]
    seen.page.locator(".calls tbody th a").click()
    expect(drawer(seen).locator(".tags tr", has_text="team").locator("td").first).to_have_text(hostile)
    export = seen.page.locator("#requests-export").get_attribute("href")
    assert [call["team"] for call in httpx.get(seen.home.rstrip("/") + export).json()["calls"]] == [hostile]
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.said == []


def test_pages_lead_to_each_other_and_keep_period_and_filters(visit):
    seen = visit("?v=1&p=7d&team=Research&basis=usage")
    expect(seen.page.locator(".teams tfoot tr")).to_have_count(1)
    documents = len([url for url in seen.asked if urlsplit(url).path in {"/", "/requests"}])
    seen.page.get_by_role("link", name="Requests").click()
    settle(seen)
    assert urlsplit(seen.page.url).path == "/requests"
    assert query(seen) == {"v": ["1"], "p": ["7d"], "team": ["Research"]}
    assert seen.page.title() == "Requests · Millicent"
    expect(seen.page.locator(".sidebar [aria-current=page]")).to_have_text("Requests")
    seen.page.get_by_role("link", name="Overview").click()
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    expect(seen.page.locator("#chart g.trace")).not_to_have_count(0)
    seen.page.go_back()
    settle(seen)
    seen.page.get_by_role("link", name="Time (UTC)").click()
    expect(seen.page.locator("th[aria-sort=descending]")).to_contain_text("Time")
    seen.page.get_by_role("link", name="Overview").click()
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    seen.page.go_back()
    settle(seen)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "sort": ["time"], "team": ["Research"]}
    assert len([url for url in seen.asked if urlsplit(url).path in {"/", "/requests"}]) == documents
    assert seen.said == []


@pytest.mark.parametrize("search", ["requests?v=1&team=nobody", f"requests?v=1&trace={'a' * 32}"])
def test_nothing_found_says_so_and_leads_out(visit, search):
    seen = visit(search)
    expect(seen.page.locator(".empty")).to_contain_text("No calls match")
    seen.page.get_by_text("Clear the filters").click()
    settle(seen)
    assert urlsplit(seen.page.url).query == ""


def test_an_address_of_no_call_and_a_place_of_no_list_say_so_or_start_anew(visit):
    seen = settle(visit(f"requests?v=1&after=AAAA&call={'0' * 32}.{'1' * 16}"))
    expect(drawer(seen)).to_contain_text("There is no such call")
    drawer(seen).get_by_role("link", name="Close").click()
    expect(seen.page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = settle(visit("requests?v=1&p=7d&cost=list&all=1", theme=theme, width=390, height=844))
    seen.page.screenshot(path=PICTURES / f"requests-{theme}-390x844.png")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    overflow = seen.page.locator(".listing .scroll").evaluate("box => box.scrollWidth - box.clientWidth")
    assert overflow <= 0
    expect(seen.page.get_by_role("link", name="counted there").first).to_be_visible()
    seen.page.locator(".calls tbody th a").first.click()
    expect(drawer(seen)).to_be_focused()
    seen.quiet().page.screenshot(path=PICTURES / f"requests-call-{theme}-390x844.png")
    box = drawer(seen).bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    assert drawer(seen).evaluate("box => box.scrollWidth - box.clientWidth") <= 0
