"""The Efficiency page in a real browser, on the real product with the example company's two months."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from millicent.dashboard import format as fmt

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
FIRST_VISIT_BYTES, ANSWER_BYTES = 1_100_000, 80_000
COMPUTED_MS = 180_000
STEPS = 8
HOSTILE = "<img src=x onerror=alert(1)>"
TEXTS = (
    ".efficiency :is(h2, p, dt, dd, small, b)", ".flow :is(th, td, small)", ".hourly :is(th, a)",
    ".wasteful :is(th, td, small, a)", ".carriers :is(th, td, small)", ".form :is(label, span, select, small)",
    ".kpi :is(h2, a, span)", ".filters label", ".pill", ".scale span", ".legend span",
)  # fmt: skip


def settle(seen):
    """Wait until every part is there and nothing is under way."""
    expect(seen.page.locator("#efficiency-kpis .kpi strong")).to_have_count(6)
    expect(seen.page.locator(".flow tbody tr")).to_have_count(STEPS)
    expect(seen.page.locator(".hourly tbody tr")).to_have_count(7)
    expect(seen.page.locator("#wasteful-body > *")).to_have_count(1)
    expect(seen.page.locator("#policy-body .facts")).to_have_count(1)
    expect(seen.page.locator("#daily-chart .scatterlayer .trace")).to_have_count(2)
    return seen.quiet()


def query(seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.page.url).query, keep_blank_values=True)


def exported(seen) -> dict[str, str]:
    """The period and the filters that the Export link asks the API for."""
    asked = parse_qs(urlsplit(seen.page.locator("#efficiency-export").get_attribute("href")).query)
    return {key: ",".join(values) for key, values in asked.items() if key in {"start", "end", "filter"}}


def usd(text: str | None) -> Decimal:
    """`$1,234.56` as a number."""
    return Decimal(re.sub(r"[$,]", "", text or "").replace(fmt.MINUS, "-").removeprefix("<"))


def near(one: str, other: str) -> bool:
    """Whether two figures are the same but for what the hour that runs accrued in between."""
    sizes = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
    found = [re.search(r"([\d,]+(?:\.\d+)?)([kMBT]?)", told) for told in (one, other)]
    if None in found:
        return one == other
    first, second = (Decimal(it[1].replace(",", "")) * sizes[it[2]] for it in found)
    return abs(first - second) <= Decimal("0.02") * max(first, second)


def drawer(seen):
    found = seen.page.get_by_role("dialog")
    expect(found).to_be_visible()
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, contrast, theme):
    seen = settle(visit("efficiency", theme=theme))
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"efficiency-{theme}-1440x900.png", full_page=True)

    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        assert contrast(seen, text) >= 4.5, text
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1440


def test_the_first_visit_is_small_and_answers_are_too(visit):
    seen = settle(visit("efficiency"))
    assert sum(seen.got.values()) <= FIRST_VISIT_BYTES
    assert max(size for url, size in seen.got.items() if "_dash-" in url and "suites" not in url) <= ANSWER_BYTES


def test_the_totals_are_those_of_the_api_and_the_way_to_busy_closes(visit, product, wait_for):
    seen = settle(visit("efficiency?v=1&vs=none"))
    named = ("capacity_cost_usd", "idle_cost_usd", "unavailable_cost_usd", "untracked_cost_usd")

    def agree() -> bool:
        """The hour that runs accrues, so both are asked until neither moved in between."""
        seen.page.reload()
        settle(seen)
        (total,) = product.query(measures=",".join((*named, "hardware_cost_usd")), **exported(seen))
        cards = [seen.page.locator(f"#kpi-{name}").get_attribute("title") for name in named]
        row = [seen.page.locator(f".wasteful tfoot td:nth-child({at})").get_attribute("title") for at in (3, 5, 6)]
        told = [fmt.usd_exact(Decimal(total[name])) for name in named]
        busy = seen.page.locator(".flow .busy .amount").get_attribute("title")
        return (
            cards == told and row == told[1:] and usd(busy) == usd(fmt.usd_exact(Decimal(total["hardware_cost_usd"])))
        )

    wait_for(agree)
    kinds = ("paid", "unused", "allocated", "unavailable", "serving", "idle", "untracked", "busy")
    levels = {kind: usd(seen.page.locator(f".flow .{kind} .amount").get_attribute("title")) for kind in kinds}
    cent = Decimal("0.03")
    assert abs(levels["paid"] - levels["unused"] - levels["allocated"]) < cent
    assert abs(levels["allocated"] - levels["unavailable"] - levels["serving"]) < cent
    assert abs(levels["serving"] - levels["idle"] - levels["untracked"] - levels["busy"]) < cent
    assert levels["unused"] > 0


def test_hours_close_too_and_the_switch_asks_for_its_part_alone(visit, product):
    seen = settle(visit("efficiency?v=1&vs=none&p=7d"))
    asked = []
    seen.page.on(
        "request", lambda request: asked.append(request.post_data_json) if "_dash-update" in request.url else None
    )
    seen.page.locator("#efficiency-unit label", has_text="Hours").click()
    expect(seen.page.locator("#flow-words")).to_contain_text("accelerator-hours")
    settle(seen)
    assert query(seen)["in"] == ["hours"]
    parts = [one["outputs"] for one in asked if one["output"] != "view-alerts.data"]
    outputs = {one["id"] for part in parts for one in part}
    assert outputs <= {"flow-body", "flow-words"} or len(outputs) > 6  # or the clock came in between
    hours = [Decimal(one.split()[0].replace(",", "")) for one in (
        seen.page.locator(f".flow .{kind} .amount").get_attribute("title")
        for kind in ("paid", "unused", "unavailable", "idle", "untracked", "busy"))]  # fmt: skip
    assert abs(hours[0] - sum(hours[1:])) < Decimal("0.01")


def test_a_row_filters_and_the_address_can_be_shared_and_undone(visit):
    seen = settle(visit("efficiency?v=1&p=7d&in=hours"))
    everything = seen.page.locator("#kpi-capacity_cost_usd").get_attribute("title")
    seen.page.locator(".wasteful tbody th a", has_text="qwen-h100").click()
    expect(seen.page.locator(".wasteful tbody tr")).to_have_count(1)
    settle(seen)
    assert query(seen) == {"v": ["1"], "p": ["7d"], "in": ["hours"], "deployment": ["qwen-h100"]}
    expect(seen.page.locator("#efficiency-deployment")).to_contain_text("qwen-h100")
    narrowed = seen.page.locator("#kpi-capacity_cost_usd").inner_text()

    other = settle(visit("efficiency?" + urlsplit(seen.page.url).query))
    assert near(other.page.locator("#kpi-capacity_cost_usd").inner_text(), narrowed)
    expect(other.page.locator("#flow-words")).to_contain_text("accelerator-hours")
    expect(other.page.locator(".wasteful tbody th")).to_contain_text(["qwen-h100"])
    seen.page.go_back()
    expect(seen.page.locator(".wasteful tbody tr")).not_to_have_count(1)
    settle(seen)
    assert near(seen.page.locator("#kpi-capacity_cost_usd").get_attribute("title") or "", everything or "")


def test_lists_narrow_by_what_a_deployment_has(visit, choose):
    seen = settle(visit("efficiency?v=1&p=7d"))
    choose(seen.page, "#efficiency-engine", "sglang")
    expect(seen.page.locator(".wasteful tbody tr")).to_have_count(3)
    assert query(seen)["engine"] == ["sglang"]
    settle(seen)
    for words in seen.page.locator(".wasteful tbody th small").all_inner_texts():
        assert "sglang" in words


def test_an_hour_of_the_week_lists_its_deployments(visit):
    seen = settle(visit("efficiency?v=1&p=7d&vs=none"))
    cell = seen.page.locator(".hourly tbody tr").nth(1).locator("a").first
    says = cell.get_attribute("title") or ""
    seen.page.locator(".hourly a").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp", "ArrowDown"):
        seen.page.keyboard.press(key)
    expect(cell).to_be_focused()
    assert seen.page.locator(".hourly a[tabindex='0']").count() == 1
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#wasteful-words")).to_contain_text("Tuesdays 00:00 to 01:00 UTC")
    settle(seen)
    assert query(seen)["at"] == ["tue-00"]
    expect(cell).to_have_attribute("aria-current", "true")
    total = seen.page.locator(".wasteful tfoot td").nth(1).get_attribute("title") or ""
    assert total in says

    seen.page.reload()
    settle(seen)
    expect(seen.page.locator(".hourly [aria-current]")).to_have_attribute("data-at", "tue-00")
    seen.page.locator(".wasteful tfoot td a").nth(1).click()
    expect(drawer(seen).locator(".costs dd").first).to_have_attribute("title", re.compile(re.escape(total[:-1])))
    seen.page.keyboard.press("Escape")
    seen.page.get_by_role("link", name="show all hours").click()
    expect(seen.page.locator("#wasteful-words")).to_contain_text("most idle cost first")
    assert "at" not in query(seen)
    assert seen.said == []


FIGURES = (
    "#kpi-capacity_cost_usd a", "#kpi-idle_cost_usd a", "#kpi-unavailable_cost_usd a", "#kpi-untracked_cost_usd a",
    "#kpi-coverage_ratio a", "#kpi-utilisation_ratio a", ".wasteful tbody tr:first-child .use a",
    ".wasteful tbody tr:first-child .idle a", ".wasteful tfoot td:nth-child(8) a",
)  # fmt: skip


def test_figures_open_their_derivation_and_focus_comes_back(visit):
    seen = settle(visit("efficiency?v=1&p=7d"))
    for figure in FIGURES:
        link = seen.page.locator(figure).first
        shown = link.inner_text()
        link.focus()
        seen.page.keyboard.press("Enter")
        opened = drawer(seen)
        expect(opened).to_be_focused()
        assert near(opened.locator(".costs dd").first.inner_text(), shown), figure
        expect(opened).to_contain_text("Its sums, exactly")
        seen.page.keyboard.press("Escape")
        expect(seen.page.get_by_role("dialog")).to_have_count(0)
        expect(link).to_be_focused()
    assert seen.said == []


@pytest.mark.parametrize("unit", ["usd", "hours"])
def test_every_step_opens_a_figure_or_the_difference_that_it_is(visit, unit):
    seen = settle(visit(f"efficiency?v=1&p=7d&in={unit}"))
    for at in range(STEPS):
        row = seen.page.locator(".flow tbody tr").nth(at)
        shown = row.locator(".amount").get_attribute("title") or ""
        row.locator("th a").click()
        opened = drawer(seen)
        expect(opened).to_contain_text("Its sums, exactly")
        left = opened.locator(".lines .sum td")
        told = left if left.count() else opened.locator(".costs dd").first
        assert near(told.inner_text(), shown) or not usd(shown.split()[0])
        seen.page.keyboard.press("Escape")
        expect(seen.page.get_by_role("dialog")).to_have_count(0)
    assert seen.said == []


def policies(product) -> list[dict]:
    return httpx.get(f"{product.url}api/v1/policies", timeout=30).json()["policies"]


def test_a_policy_is_set_from_the_page_takes_effect_and_its_note_is_only_a_note(visit, product):
    seen = settle(visit("efficiency?v=1&p=7d"))
    at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)

    def ask(idle: str, note: str) -> None:
        form = seen.page.locator("#policy form")
        form.locator("select[name=idle]").select_option(idle)
        form.get_by_label("From").fill(f"{at:%Y-%m-%d}")
        form.locator("select[name=hour]").select_option(f"{at:%H}")
        form.get_by_label("Note").fill(note)
        form.get_by_role("button", name="Set the policy").click()
        expect(seen.page.locator(".toast")).to_contain_text(f"idle {idle}")
        expect(seen.page.locator(".carriers thead .now")).to_contain_text(
            {"charge the owner": "To the owner", "show": "Show"}[idle]
        )

    try:
        ask("charge the owner", HOSTILE)
        expect(seen.page.locator("#policy .facts")).to_contain_text(HOSTILE)
        assert (policies(product)[-1]["idle"], policies(product)[-1]["note"]) == ("charge the owner", HOSTILE)
        told = {"measures": "idle_cost_usd", "group_by": "team", "start": f"{at:%Y-%m-%dT%H:%M:%SZ}",
                "end": f"{at + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}", "filter": "cost_type:idle"}  # fmt: skip
        carried = lambda: {row["team"] for row in product.query(**told)}  # noqa: E731 - asked again and again
        until = datetime.now(UTC) + timedelta(milliseconds=COMPUTED_MS)
        while not {"Search", "Assistants"} <= carried():
            assert datetime.now(UTC) < until, carried()
            seen.page.wait_for_timeout(500)
    finally:
        ask("show", "as it was")
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.said == []


def test_filters_that_match_nothing_say_so_and_lead_out(visit):
    seen = visit(f"efficiency?v=1&deployment={quote(HOSTILE)}")
    expect(seen.page.locator(".empty")).to_contain_text("No accelerators match")
    assert seen.page.locator("img[src=x]").count() == 0
    seen.page.get_by_text("Clear the filters").click()
    settle(seen)
    assert query(seen) == {}
    assert seen.said == []


def test_the_days_are_a_table_too(visit):
    seen = settle(visit("efficiency?v=1&p=7d"))
    seen.page.get_by_role("button", name="Show as a table").click()
    expect(seen.page.locator("#daily-table tbody tr")).to_have_count(7)
    assert seen.page.locator("#daily-table thead th").last.inner_text() == "Utilisation"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = settle(visit("efficiency", theme=theme, width=390, height=844))
    seen.page.screenshot(path=PICTURES / f"efficiency-{theme}-390x844.png", full_page=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.locator("#kpi-idle_cost_usd a").click()
    drawer(seen)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
