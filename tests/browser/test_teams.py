"""The Teams page in a real browser, on the real product with the example company's two months."""

import io
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pypdf
import pytest
from playwright.sync_api import expect

from millicent.dashboard import format as fmt
from millicent.dashboard.months import Month

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
ANSWER_BYTES = 80_000
TEXTS = (
    ".payers :is(th, td, a)", ".lines-of :is(caption, th, td)", ".rule-words li", ".columns-of :is(small, span)",
    ".carriers :is(th, td)", ".orphans :is(th, td)", ".closing :is(p, h3, li)", ".month-of .button:not(.off)",
    ".kpi :is(h2, strong, span)",
)  # fmt: skip


def settle(seen):
    """Wait until every part is there and nothing is under way."""
    expect(seen.page.locator("#chargeback-kpis .kpi strong")).to_have_count(6)
    expect(seen.page.locator(".payers tfoot tr")).to_have_count(1)
    expect(seen.page.locator(".columns-of li")).to_have_count(13)
    for part in ("statement", "otherwise", "orphans", "closing"):
        expect(seen.page.locator(f"#{part}-body > *")).to_have_count(1)
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)


def usd(text: str) -> Decimal:
    """`$1,234.56` as a number."""
    return Decimal(re.sub(r"[$,]", "", text).replace(fmt.MINUS, "-"))


def last_month() -> Month:
    return Month.of(datetime.now(UTC)).before()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("teams?v=1&team=Search", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"teams-{theme}-1440x900.png", full_page=True)

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1440
    assert max(size for url, size in seen.got.items() if "_dash-update" in url) <= ANSWER_BYTES


def test_a_click_shows_the_statement_of_a_team_which_adds_up_and_is_the_overviews(visit, product):
    month = last_month()
    seen = settle(visit(f"teams?v=1&m={month.written}"))
    seen.page.get_by_title("The statement of Search", exact=True).click()
    expect(seen.page.locator("#statement-title")).to_have_text("Search")
    settle(seen)
    assert (query(seen)["team"], query(seen)["m"]) == (["Search"], [month.written])

    total = usd(seen.page.locator("#statement-total").inner_text())
    for table in seen.page.locator(".lines-of").all()[:3]:
        lines = [usd(one) for one in table.locator("tbody td:last-child").all_inner_texts()]
        assert sum(lines) == total == usd(table.locator("tfoot td:last-child").inner_text())
    (asked,) = product.query(measures="spend_usd", filter="team:Search", start=f"{month.written}-01",
                             end=f"{month.before(-1).written}-01")  # fmt: skip
    assert fmt.usd_exact(Decimal(asked["spend_usd"])) == seen.page.locator("#kpi-spend_usd").get_attribute("title")
    assert round(Decimal(asked["spend_usd"]), 2) == total


def test_months_lead_to_months_and_an_open_one_charges_nothing(visit):
    seen = settle(visit("teams"))
    seen.page.locator(".columns-of a").nth(11).click()
    expect(seen.page.locator("#statement-words")).to_contain_text(last_month().words)
    seen.page.locator("#chargeback-as input[value=chargeback]").click()
    expect(seen.page.locator(".uncharged")).to_contain_text("nothing is charged")
    assert query(seen)["as"] == ["chargeback"]
    seen.page.locator(".month-of a").last.click()
    expect(seen.page.locator("#closing-words")).to_contain_text("is open")
    assert "m" not in query(seen)
    assert query(seen)["as"] == ["chargeback"], "goes along"
    seen.page.go_back()
    expect(seen.page.locator("#closing-words")).to_contain_text("still open")


def test_a_month_is_not_closed_by_a_slip(visit):
    seen = settle(visit(f"teams?v=1&m={last_month().written}"))
    button = seen.page.locator("#closing-body button")
    button.click()
    expect(seen.page.locator("#chargeback-answer")).to_contain_text("stays open")
    expect(button).to_be_enabled()


def test_a_figure_opens_where_it_came_from(visit):
    seen = settle(visit("teams?v=1&team=Search"))
    seen.page.locator("#statement-body a.figure").first.click()
    found = seen.page.get_by_role("dialog")
    expect(found).to_contain_text("What was asked")
    expect(found).to_contain_text("Search")
    seen.page.keyboard.press("Escape")
    expect(found).to_have_count(0)
    assert seen.said == []


def test_the_page_leads_to_files_that_others_can_read(visit, product):
    seen = settle(visit("teams?v=1&team=Search"))
    file = seen.page.locator(".files-of a", has_text="PDF")
    assert file.get_attribute("download") == ""
    answer = httpx.get(product.url + (file.get_attribute("href") or "").removeprefix("/"), timeout=60)
    assert re.search(r'filename="millicent-\d{4}-\d{2}-Search\.pdf"', answer.headers["content-disposition"])
    text = pypdf.PdfReader(io.BytesIO(answer.content)).pages[0].extract_text()
    assert "Showback statement" in text


def test_a_hostile_name_is_text_on_a_phone_too(visit, hostile):
    seen = settle(visit(f"teams?v=1&team={quote(hostile)}", width=390, height=844))
    expect(seen.page.locator("#statement-title")).to_have_text(hostile)
    assert seen.page.locator("#statement-title img, #statement-title script").count() == 0
    assert seen.said == []
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
