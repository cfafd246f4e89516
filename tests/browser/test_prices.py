"""The Prices page in a real browser: finding a price, giving one to what has none, and changing the past knowingly."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
FIRST_VISIT_BYTES, ANSWER_BYTES = 1_100_000, 80_000
REPRICED_MS = 180_000
UNPRICED = "acme-legal-ft-2"
OF_THE_PAGE = {"prices", "find", "entries", "repricings", "unpriced", "pricedata"}
OF_EVERY_PAGE = {"page", "view"}
TEXTS = (
    ".prices :is(h2, p, th, td, small, a, dt, dd)", ".prices .button", ".tag", ".pill", ".filters label",
    ".drawer :is(p, dt, dd, th, td, small, b, a, li, h2, h3, label, legend, button)",
)  # fmt: skip


def settle(seen):
    """Wait until every part is there and nothing is under way."""
    expect(seen.page.locator("#prices-words")).to_contain_text("UTC")
    expect(seen.page.locator("#find-body table tbody tr").first).to_be_visible()
    expect(seen.page.locator("#entries-body :is(p, table)").first).to_be_visible()
    expect(seen.page.locator("#repricings-body :is(p, table)").first).to_be_visible()
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query)


def drawer(seen, title: str | None = None):
    found = seen.page.get_by_role("dialog")
    expect(found).to_be_visible()
    if title:
        expect(found.locator("h2")).to_have_text(title)
    return found


def asked_for(seen) -> set[str]:
    """The parts of pages that the server was asked for, by how their ids begin."""
    return {name.partition("-")[0] for name in seen.outputs}


@pytest.fixture
def listen(visit):
    """Visits, and tells which outputs each asked the server for."""

    def open_(*told, **more):
        seen = visit(*told, **more)
        seen.outputs = []

        def note(request):
            if "_dash-update-component" in request.url:
                told = json.loads(request.post_data)["outputs"]
                seen.outputs += [one["id"] for one in (told if isinstance(told, list) else [told])]

        seen.page.on("request", note)
        return seen

    return open_


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("prices?v=1&p=7d", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"prices-{theme}-1440x900.png")
    seen.page.locator("#find-body tbody th a").first.click()
    expect(drawer(seen).locator("#price-chart .scatterlayer .trace")).to_have_count(3)
    seen.quiet().page.screenshot(path=PICTURES / f"prices-history-{theme}-1440x900.png")

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text


def test_the_first_visit_is_small_and_answers_are_too(visit):
    seen = settle(visit("prices"))
    assert sum(seen.got.values()) <= FIRST_VISIT_BYTES
    assert max(size for url, size in seen.got.items() if "_dash-" in url and "suites" not in url) <= ANSWER_BYTES


def test_only_the_page_that_is_shown_asks(listen):
    seen = settle(listen("prices"))
    seen.page.locator("#prices-range label", has_text="7d").click()
    expect(seen.page.locator("#prices-range label:has(:checked)")).to_have_text("7d")
    settle(seen)
    assert asked_for(seen) <= OF_THE_PAGE | OF_EVERY_PAGE
    seen.page.get_by_role("link", name="Overview", exact=True).click()
    expect(seen.page.locator("#kpis .kpi strong")).to_have_count(6)
    seen.quiet()
    seen.outputs.clear()
    seen.page.locator("#range label", has_text="12w").click()
    expect(seen.page.locator("#range label:has(:checked)")).to_have_text("12w")
    seen.quiet()
    assert seen.outputs
    assert not asked_for(seen) & (OF_THE_PAGE - OF_EVERY_PAGE)
    assert seen.said == []


def test_a_search_is_an_address_and_what_it_finds_opens_with_its_history(visit):
    seen = settle(visit("prices"))
    seen.page.get_by_label("Provider or model").fill("openai gpt-4o")
    expect(seen.page.locator("#find-body tbody th a").first).to_have_attribute("title", "gpt-4o")
    settle(seen)
    assert query(seen) == {"v": ["1"], "q": ["openai gpt-4o"]}
    row = seen.page.locator("#find-body tbody tr").first
    expect(row).to_contain_text("$2.50")
    source = row.locator("a.outside")
    assert (source.get_attribute("target"), source.get_attribute("rel")) == ("_blank", "noopener noreferrer")

    row.locator("th a").focus()
    seen.page.keyboard.press("Enter")
    opened = drawer(seen, "gpt-4o")
    expect(opened).to_be_focused()
    expect(opened.locator(".legend li")).to_have_text(["Input", "Cached", "Output"])
    expect(opened.locator("#price-chart .scatterlayer .trace")).to_have_count(3)
    expect(opened.locator("table").first).to_contain_text("in force")
    expect(opened).to_contain_text("batch")
    expect(opened).to_contain_text("Where it can be read")
    expect(seen.page.locator("tr.open")).to_have_count(1)

    other = visit("prices?" + urlsplit(seen.page.url).query)
    expect(drawer(other, "gpt-4o")).to_contain_text("$2.50")
    expect(other.page.get_by_label("Provider or model")).to_have_value("openai gpt-4o")

    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(row.locator("th a")).to_be_focused()
    assert query(seen) == {"v": ["1"], "q": ["openai gpt-4o"]}


def test_nothing_found_and_nothing_there_say_so(visit):
    seen = visit("prices?v=1&q=no-such-model&open=run%3Fid%3D99")
    expect(seen.page.locator("#find-body")).to_contain_text("No price list has a model like no-such-model")
    expect(drawer(seen)).to_contain_text("There is nothing here")


def test_what_has_no_price_gets_one_with_one_click_and_past_calls_follow(visit, product):
    seen = settle(visit("prices"))
    row = seen.page.locator("#unpriced-body tr", has_text=UNPRICED)
    row.get_by_text("Price like…").click()
    choice = row.locator("[data-do=price_like]").first
    like = choice.locator("b").inner_text()
    choice.click()
    expect(seen.page.locator(".toast")).to_contain_text(f"{UNPRICED} is priced like {like} from")
    expect(row).to_have_count(0, timeout=REPRICED_MS)
    expect(seen.page.locator("#repricings-body tbody tr").first).to_contain_text("done")
    expect(seen.page.locator("#entries-body tbody tr").first).to_contain_text(f"as {like}")

    asked = {"measures": "calls,unpriced_calls,billed_cost_usd", "filter": f"model:{UNPRICED}", "period": "12w"}
    (total,) = product.query(**asked)
    assert int(total["calls"]) > 0
    assert int(total["unpriced_calls"]) == 0
    assert float(total["billed_cost_usd"]) > 0

    seen.page.locator("#repricings-body tbody tr").first.get_by_text("Undo…").click()
    seen.page.get_by_role("button", name="Undo it").first.click()
    expect(drawer(seen)).to_contain_text("Undoing of repricing")
    expect(drawer(seen).locator(".status")).to_contain_text("undid", timeout=REPRICED_MS)
    (total,) = product.query(**asked)
    assert int(total["unpriced_calls"]) > 0  # all but those that came in between
    assert seen.said == []


def test_a_discount_is_checked_shown_saved_and_applied_to_the_past(visit, product):
    seen = settle(visit("prices"))
    seen.page.get_by_role("link", name="Add a discount").click()
    form = drawer(seen, "A discount")
    expect(form.locator(".problems")).to_contain_text("Source is missing")
    form.get_by_label("Provider").fill("anthropic")
    form.get_by_label("Percent off").fill("120")
    form.get_by_label("From").fill("2026-11-01")
    form.get_by_label("Source").fill("contract 7")
    expect(form.locator(".problems .wrong")).to_contain_text("Percent off 120 is not")
    form.get_by_label("Percent off").fill("10")
    expect(form.locator("#prices-effect")).to_contain_text("What it changes")
    expect(form.locator("#prices-effect tbody tr", has_text="Output").first).to_contain_text("$13.50")
    seen.page.screenshot(path=PICTURES / "prices-discount-light-1440x900.png")
    form.get_by_role("button", name="Save").click()

    offered = drawer(seen, "Reprice stored calls")
    expect(seen.page.locator(".toast")).to_contain_text("10% off")
    expect(offered.locator("tfoot")).to_contain_text("Total")
    expect(offered.locator("tbody tr").first).to_contain_text("claude-sonnet-4-5")
    seen.quiet().page.screenshot(path=PICTURES / "prices-difference-light-1440x900.png")
    offered.get_by_role("button", name="Apply to").click()
    expect(drawer(seen).locator(".status")).to_contain_text("done", timeout=REPRICED_MS)
    (total,) = product.query(measures="billed_cost_usd,list_cost_usd", filter="provider:anthropic", basis="billed",
                             start="2026-11-01T00:00:00Z", end="2027-01-01T00:00:00Z")  # fmt: skip
    assert abs(float(total["billed_cost_usd"]) / float(total["list_cost_usd"]) - 0.9) < 1e-6

    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    row = seen.page.locator("#find-body tbody tr", has=seen.page.locator('a[title="claude-sonnet-4-5"]'))
    expect(row).to_contain_text("$2.70 / $13.50")
    seen.page.locator("#entries-body tbody tr", has_text="10% off").locator("th a").click()
    drawer(seen).get_by_text("Retire…").click()
    drawer(seen).get_by_role("button", name="Retire it").click()
    expect(seen.page.locator(".toast")).to_contain_text("is retired")
    expect(seen.page.locator("#entries-body")).not_to_contain_text("10% off")
    assert seen.said == []


def test_a_price_of_ones_own_stands_in_search_and_history(visit, product):
    seen = visit("prices?v=1&open=add%3Fkind%3Doverride%26provider%3Dopenai%26model%3Dgpt-5-mini")
    form = drawer(seen, "Your own price")
    expect(form.get_by_label("Model *")).to_have_value("gpt-5-mini")
    form.get_by_label("Input", exact=True).fill("0.2")
    form.get_by_label("Output", exact=True).fill("1.8")
    form.get_by_label("Source").fill("https://example.com/prices <b>bold</b>")
    expect(form.locator("#prices-effect tbody tr", has_text="Input")).to_contain_text("$0.25→$0.20")
    seen.page.screenshot(path=PICTURES / "prices-own-light-1440x900.png")
    form.get_by_label("Source").press("Enter")
    expect(drawer(seen, "Reprice stored calls")).to_be_visible()
    seen.page.keyboard.press("Escape")
    row = seen.page.locator("#find-body tbody tr", has=seen.page.locator("a[title=gpt-5-mini]"))
    expect(row).to_contain_text("your price")
    row.locator("th a").click()
    expect(drawer(seen, "gpt-5-mini").locator(".legend")).to_contain_text("Your price")
    expect(drawer(seen).locator("table").first).to_contain_text("<b>bold</b>")
    seen.quiet().page.screenshot(path=PICTURES / "prices-own-history-light-1440x900.png")
    entries = httpx.get(f"{product.url}api/v1/prices/entries", timeout=30).json()["entries"]
    assert [entry["prices"]["input_mtok"] for entry in entries if entry.get("model") == "gpt-5-mini"] == ["0.2"]
    assert seen.said == []


def test_a_hostile_name_is_only_a_name(visit, hostile):
    seen = visit("prices?v=1&open=add%3Fkind%3Doverride")
    form = drawer(seen, "Your own price")
    form.get_by_label("Model *").fill(hostile)
    form.get_by_label("Input", exact=True).fill("1")
    form.get_by_label("Source").fill(hostile)
    expect(form.locator("#prices-effect tbody tr").first).to_contain_text(hostile)
    form.get_by_role("button", name="Save").click()
    expect(seen.page.locator("#entries-body tbody tr").first).to_contain_text(hostile)
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.said == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = settle(visit("prices?v=1&p=7d", theme=theme, width=390, height=844))
    seen.page.screenshot(path=PICTURES / f"prices-{theme}-390x844.png", full_page=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("unpriced", "find", "entries", "repricings"):
        boxes = seen.page.locator(f"#{part}-body .scroll")
        assert all(over <= 0 for over in boxes.evaluate_all("all => all.map(box => box.scrollWidth - box.clientWidth)"))
    seen.page.locator("#find-body tbody th a").first.click()
    expect(drawer(seen)).to_be_focused()
    seen.quiet().page.screenshot(path=PICTURES / f"prices-history-{theme}-390x844.png")
    assert drawer(seen).bounding_box()["width"] == 390
    assert drawer(seen).evaluate("box => box.scrollWidth - box.clientWidth") <= 0


def test_the_period_is_kept_from_page_to_page(visit):
    seen = visit("?v=1&p=7d&team=Research")
    expect(seen.page.locator(".teams tfoot tr")).to_have_count(1)
    seen.page.get_by_role("link", name="Prices").click()
    settle(seen)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "team": ["Research"]}
    assert seen.page.title() == "Prices · Millicent"
    seen.page.get_by_role("link", name="Requests").click()
    expect(seen.page.locator(".calls .team").first).to_have_text(re.compile("Research"))
    assert query(seen) == {"v": ["1"], "p": ["7d"], "team": ["Research"]}
