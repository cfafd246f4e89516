"""The Exports page in a real browser: a file is chosen, its sums hold, and what is downloaded adds up to them."""

import csv
import re
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
TEXTS = (".presets b", ".presets span", ".sums li", ".sums small", ".preview td", ".preview th", ".rules summary",
         ".month-of b", "#exports-downloads a")  # fmt: skip


def settle(seen):
    """Wait until rows and sums are there and nothing is under way."""
    expect(seen.page.locator(".preview tbody tr").first).to_be_visible(timeout=60_000)
    expect(seen.page.locator(".sums li").first).to_be_visible(timeout=60_000)
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("exports", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"exports-{theme}-1440x900.png")
    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text


def test_a_file_is_chosen_and_what_is_downloaded_adds_up_to_its_sums(visit, tmp_path):
    seen = settle(visit("exports", width=390, height=844))
    seen.page.locator(".month-of a").first.click()
    expect(seen.page.locator("#sums-words")).not_to_contain_text(seen.page.locator(".month-of b").inner_text())
    settle(seen)
    assert re.fullmatch(r"\d{4}-\d\d", query(seen)["m"][0])
    expect(seen.page.locator(".sums .fails")).to_have_count(0)
    spend = Decimal(seen.page.locator(".sums b").first.inner_text().removesuffix(" USD").replace(",", ""))
    with seen.page.expect_download() as found:
        seen.page.locator("#exports-downloads a", has_text="CSV").click()
    path = tmp_path / "focus.csv"
    found.value.save_as(path)
    assert found.value.suggested_filename == f"focus-1.2-token-service-{query(seen)['m'][0]}.csv"
    with path.open(newline="") as file:
        costs = [Decimal(row["EffectiveCost"]) for row in csv.DictReader(file)]
    assert round(sum(costs), 2) == spend

    seen.page.get_by_role("link", name="Daily spend by team").click()
    expect(seen.page.locator(".preview th").first).to_have_text("time")
    assert query(seen)["file"] == ["teams"]


def test_the_menu_of_files_opens_by_keyboard_and_closes(visit):
    seen = settle(visit("exports?v=1&file=models"))
    face = seen.page.locator("#exports-export-menu > summary")
    face.focus()
    seen.page.keyboard.press("Enter")
    link = seen.page.locator("#exports-export-menu a").first
    expect(link).to_be_visible()
    assert "group_by=model,provider,billing,accelerator" in (link.get_attribute("href") or "")
    seen.page.keyboard.press("Escape")
    expect(link).to_be_hidden()
