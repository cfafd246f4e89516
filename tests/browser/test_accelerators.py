"""The Accelerators page in a real browser, on the real product with the example company's two months."""

import re
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from millicent.dashboard.pages.figures import exact

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
ANSWER_BYTES = 80_000
TEXTS = (
    ".lead", ".kpi :is(h2, strong, .delta, .kpi-foot span)", ".bars :is(th, td, small, .figure)", ".tag",
    ".homes :is(th, td, small, .figure)", ".legend span", ".panel-head p", ".filters label", ".pill",
)  # fmt: skip
OPENED = ".drawer :is(h2, h3, p, dt, dd, th, td, small, a, b, code)"
ROW = ".homes tbody tr"


def settle(seen):
    """Wait until every number is there and nothing is under way."""
    expect(seen.page.locator("#accelerators-kpis .kpi strong")).to_have_count(6)
    expect(seen.page.locator(".homes tfoot tr")).to_have_count(1)
    expect(seen.page.locator(".compare tbody")).not_to_have_count(0)
    expect(seen.page.locator(".energy tfoot tr")).to_have_count(1)
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)


def drawer(seen):
    found = seen.page.get_by_role("dialog")
    expect(found).to_be_visible()
    return found


def exported(seen) -> dict[str, str]:
    """What the Export link asks the API for, all filters but that of own hardware in it."""
    asked = parse_qs(urlsplit(seen.page.locator("#accelerators-export").get_attribute("href")).query)
    return {name: asked[name][0] for name in ("start", "end", "filter")}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("accelerators", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"accelerators-{theme}-1440x900.png")
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text
    seen.page.locator(f"{ROW} .of-cost a").first.click()
    expect(drawer(seen)).to_contain_text("Deployment-hours behind it")
    seen.quiet().page.screenshot(path=PICTURES / f"accelerators-figure-{theme}-1440x900.png")
    assert contrast(seen, OPENED) >= 4.5
    drawer(seen).locator(".hours tbody a").first.click()
    expect(drawer(seen).locator(".lines")).not_to_have_count(0)
    seen.quiet().page.screenshot(path=PICTURES / f"accelerators-hour-{theme}-1440x900.png")
    assert contrast(seen, OPENED) >= 4.5
    assert seen.said == []
    assert seen.foreign == []


def test_no_answer_is_large(visit):
    seen = settle(visit("accelerators?v=1&p=12w"))
    answers = {url: size for url, size in seen.got.items() if "_dash-update-component" in url}
    assert answers
    assert max(answers.values()) <= ANSWER_BYTES
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1440
    table = seen.page.locator("#costs .scroll")
    assert table.evaluate("box => box.scrollWidth - box.clientWidth") <= 0


def test_the_totals_are_those_of_the_api(visit, product, wait_for):
    seen = settle(visit("accelerators?v=1&p=7d&vs=none"))

    def agree() -> bool:
        """The hour that runs accrues cost, so both are asked until neither moved in between."""
        seen.page.reload()
        settle(seen)
        names = ("capacity_cost_usd", "idle_cost_usd", "cost_per_mtok_usd")
        (total,) = product.query(measures=",".join(names), **exported(seen))
        cards = [seen.page.locator(f"#kpi-{name}").get_attribute("title") for name in names]
        return cards == [exact(Decimal(total[name]), "usd") for name in names]

    wait_for(agree)


def test_filters_and_the_denominator_are_an_address_that_can_be_shared(visit, choose):
    seen = settle(visit("accelerators?v=1&p=7d"))
    rows = seen.page.locator(ROW).count()
    choose(seen.page, "#accelerators-engine", "vLLM")
    expect(seen.page.locator(ROW)).not_to_have_count(rows)
    seen.page.locator("#accelerators-per label", has_text="Output").last.click()
    expect(seen.page.locator("#accelerators-kpis")).to_contain_text("$ / 1M tokens, output")
    settle(seen)
    seen.page.get_by_role("link", name="All in").click()
    expect(seen.page.locator("th[aria-sort=ascending]")).to_contain_text("All in")
    settle(seen)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "per": ["output"], "engine": ["vllm"], "order": ["cost"]}
    costs = seen.page.locator(f"{ROW} .of-cost").all_inner_texts()
    told = [float(text.removeprefix("$").replace(",", "").replace("k", "e3")) for text in costs if text != "—"]
    assert told == sorted(told)

    other = settle(visit("accelerators?" + urlsplit(seen.page.url).query))
    assert other.page.locator(f"{ROW} th").all_inner_texts() == seen.page.locator(f"{ROW} th").all_inner_texts()
    expect(other.page.locator("#accelerators-engine")).to_contain_text("vLLM")
    seen.page.go_back()
    expect(seen.page.locator("th[aria-sort]")).to_have_count(0)


def test_a_row_narrows_the_page_and_the_switch_asks_only_for_energy(visit):
    seen = settle(visit("accelerators?v=1&p=7d"))
    before = len(seen.asked)
    seen.page.locator("#accelerators-by label", has_text="Deployment").click()
    expect(seen.page.locator(".energy tbody")).to_contain_text("qwen-h100")
    seen.quiet()
    asked = [url for url in seen.asked[before:] if "_dash-update-component" in url]
    assert len(asked) in {1, 2, 5, 6}  # 4 more: the clock; 1: how many alerts there are
    assert query(seen)["by"] == ["deployment"]
    seen.page.locator(".compare tbody th[scope=row] a").first.click()
    expect(seen.page.locator(ROW)).to_have_count(1)
    assert {"model", "accelerator"} <= query(seen).keys()


def test_any_figure_opens_by_keyboard_and_closes_where_it_was(visit):
    seen = settle(visit("accelerators?v=1&p=7d"))
    card = seen.page.locator("#kpi-idle_cost_usd a")
    card.focus()
    seen.page.keyboard.press("Enter")
    expect(drawer(seen)).to_be_focused()
    expect(drawer(seen)).to_contain_text("Σ idle_cost_usd")
    assert query(seen)["open"] == ["idle_cost_usd"]
    drawer(seen).locator(".hours tbody a").first.click()
    expect(drawer(seen).get_by_role("link", name="All that is behind the figure")).to_be_visible()
    other = visit("accelerators?" + urlsplit(seen.page.url).query)
    expect(drawer(other).locator(".lines")).not_to_have_count(0)
    assert drawer(other).inner_text() == drawer(seen).inner_text()
    seen.page.keyboard.press("Escape")
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    expect(card).to_be_focused()
    assert "open" not in query(seen)


@pytest.mark.parametrize(
    "place",
    ["#kpi-capacity_cost_usd a", "#kpi-utilisation_ratio a", "#kpi-tokens_per_joule a", "#kpi-energy_wh a",
     "#accelerators-lead a", ".compare td.amount a", ".rates td a", ".idlest td a", ".energy tbody td a",
     ".homes .of-list a", ".homes .of-busy a", ".homes .of-speed a", ".homes .of-hour a", ".homes tfoot .of-idle a"],
)  # fmt: skip
def test_every_kind_of_figure_opens_what_it_shows(visit, place):
    seen = settle(visit("accelerators?v=1&p=7d"))
    figure = seen.page.locator(place).first
    face = figure.evaluate("link => link.childNodes[0].textContent")
    figure.click()
    told = drawer(seen).locator(".costs dd").first.inner_text()
    shown, opened = (re.match(r"(\$?)([\d.,]+)(.*)", text).groups() for text in (face, told))
    assert (shown[0], shown[2]) == (opened[0], opened[2])
    numbers = [Decimal(one[1].replace(",", "")) for one in (shown, opened)]
    assert abs(numbers[0] - numbers[1]) <= max(numbers) / 100, "the hour that runs adds little in between"
    assert seen.said == []


def test_a_team_is_told_what_its_calls_carry_and_what_cannot_be_told(visit):
    seen = settle(visit("accelerators?v=1&p=7d&team=Search"))
    expect(seen.page.locator("#accelerators-notice")).to_contain_text("Filtered by team")
    assert seen.page.locator("#kpi-utilisation_ratio").inner_text() == "—"
    assert re.match(r"\$[\d.,]+k?$", seen.page.locator("#kpi-capacity_cost_usd").inner_text())


def test_nothing_for_these_filters_says_so_and_leads_out(visit):
    seen = visit("accelerators?v=1&p=7d&model=none-such&open=moon")
    expect(seen.page.locator(".empty")).to_contain_text("match")
    seen.page.locator(".drawer").get_by_role("link", name="Close").click()
    seen.page.get_by_text("Clear the filters").click()
    settle(seen)
    assert query(seen) == {"v": ["1"], "p": ["7d"]}


def test_names_are_text_and_nothing_else(visit, hostile):
    figure = f"capacity_cost_usd?deployment={hostile}&of={hostile}&at=2026-01-01T00:00"
    seen = visit("accelerators")
    goes = "([name, open]) => { location.search = new URLSearchParams({v: 1, deployment: name, open}); }"
    seen.page.evaluate(goes, [hostile, figure])
    expect(drawer(seen)).to_contain_text("No such hour is known")
    expect(seen.page.locator("#accelerators-deployment")).to_contain_text(hostile)
    seen.quiet()
    assert seen.page.locator(".drawer img, .drawer script, main img").count() == 0
    assert seen.said == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = settle(visit("accelerators?v=1&p=7d", theme=theme, width=390, height=844))
    seen.page.screenshot(path=PICTURES / f"accelerators-{theme}-390x844.png", full_page=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.locator("#kpi-idle_cost_usd a").click()
    expect(drawer(seen)).to_be_focused()
    seen.quiet().page.screenshot(path=PICTURES / f"accelerators-figure-{theme}-390x844.png")
    box = drawer(seen).bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    assert drawer(seen).evaluate("box => box.scrollWidth - box.clientWidth") <= 0
