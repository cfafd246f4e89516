"""The Alerts page in a real browser, on the real product with the example company's two months."""

import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"
ANSWER_BYTES = 80_000
BUDGET = "Runs over"
SAYS = f"{BUDGET} has spent"
FIRES_S = 300
STILL = "dash_clientside.millicent.tick = () => dash_clientside.no_update"
"""Nothing is asked again while we press."""
HOSTILE = "<img src=x onerror=alert(1)>"
TEXTS = (
    ".alerts :is(h3, p, span, button)", ".endpoints :is(h3, p, span)", ".ruleset > summary :is(b, span)",
    ".ruled :is(th, td, small)", ".kpi :is(h2, strong, span)", ".drawer :is(p, dt, dd, th, td, small, b, a, h2, h3)",
    ".drawer .button", ".pill", ".calm :is(h3, p)",
)  # fmt: skip


def post(product, path: str, **told):
    answer = httpx.post(f"{product.url}api/v1/{path}", json=told, timeout=60,
                        headers={"origin": product.url.rstrip("/")})  # fmt: skip
    assert answer.is_success, answer.text
    return answer.json()


def found(product) -> list[dict]:
    """Open alerts of the budget."""
    answer = httpx.get(
        f"{product.url}api/v1/alerts", params={"state": ["firing", "acknowledged"], "limit": 200}, timeout=60
    )
    return [one for one in answer.json()["alerts"] if one["summary"].startswith(SAYS)]


@pytest.fixture(scope="module")
def overrun(product) -> int:
    """A budget that is spent already."""
    made = post(product, "budgets", name=BUDGET, amount="1", effective_from="2026-01-01T00:00:00Z", owner="Ana")
    return made["id"]


@pytest.fixture
def alert(product, overrun) -> dict:
    until = time.monotonic() + FIRES_S
    while not (one := next(iter(found(product)), None)):
        assert time.monotonic() < until, "it did not fire"
        time.sleep(0.5)
    return one


def settle(seen):
    """Wait until every part is there and nothing is under way; from then on it is still, whatever the clock says."""
    for part in ("inbox", "endpoints", "rules"):
        expect(seen.page.locator(f"#{part}-body > *").first).to_be_visible()
    expect(seen.page.locator("#alerts-kpis .kpi strong")).to_have_count(5)
    seen.page.set_default_timeout(60_000)
    seen.page.evaluate(STILL)
    return seen.quiet()


def entry(seen):
    return seen.page.locator(".alerts > li", has_text=SAYS)


def opened(seen) -> str:
    return "".join(parse_qs(urlsplit(seen.page.url).query).get("open", []))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_asks_nobody_else_and_can_be_read(visit, alert, contrast, theme):
    seen = settle(visit("alerts", theme=theme))
    entry(seen).locator("h3 a").click()
    drawer = seen.page.get_by_role("dialog")
    expect(drawer).to_contain_text("What happened")
    expect(drawer).to_contain_text("$1.00")
    seen.page.evaluate("document.querySelector('.ruleset').open = true")
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"alerts-{theme}-1440x900.png")
    assert seen.said == []
    assert seen.foreign == []
    for text in TEXTS:
        if seen.page.locator(text).count():
            assert contrast(seen, text) >= 4.5, text
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1440
    assert max(size for url, size in seen.got.items() if "_dash-update" in url) <= ANSWER_BYTES
    seen.page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    assert opened(seen) == ""


def test_an_alert_is_seen_to_put_off_and_had_back(visit, product, alert):
    seen = settle(visit("alerts"))
    count = seen.page.evaluate("document.documentElement.style.getPropertyValue('--alerts')")
    entry(seen).get_by_role("button", name="Acknowledge").click()
    expect(entry(seen)).to_contain_text("seen by")
    assert next(one for one in found(product) if one["id"] == alert["id"])["state"] == "acknowledged"
    seen.page.wait_for_function(
        "(was) => document.documentElement.style.getPropertyValue('--alerts') !== was", arg=count
    )
    entry(seen).get_by_text("Snooze", exact=True).click()
    entry(seen).get_by_role("button", name="For a day").click()
    expect(entry(seen)).to_have_count(0)
    seen.page.locator("#alerts-show label", has_text="Snoozed").click()
    expect(entry(seen)).to_contain_text("snoozed until")
    entry(seen).get_by_role("button", name="Wake").click()
    expect(entry(seen)).to_have_count(0)
    seen.page.locator("#alerts-show label", has_text="Open").click()
    expect(entry(seen)).to_contain_text("seen by")
    assert seen.said == []


def test_an_endpoint_is_added_and_shows_its_secret_once(visit, product):
    seen = settle(visit("alerts", width=390, height=844))
    seen.page.get_by_role("link", name="Add an endpoint").click()
    form = seen.page.locator(".drawer form")
    form.get_by_label("Name").fill(HOSTILE)
    form.get_by_label("Address").fill("https://receiver.example.com/hook")
    form.get_by_text("Unusual days").click()
    form.get_by_role("button", name="Add the endpoint").click()
    expect(seen.page.locator("#alerts-answer .toast")).to_have_text(f"{HOSTILE} is added. Send it a test.")
    secret = seen.page.locator("#secret-text")
    expect(secret).to_contain_text("whsec_")
    expect(seen.page.locator("#derivation-title")).to_have_text(HOSTILE)
    told = next(one for one in httpx.get(f"{product.url}api/v1/webhooks", timeout=30).json()["endpoints"]
                if one["name"] == HOSTILE)  # fmt: skip
    assert told["types"]
    assert not [one for one in told["types"] if one.startswith("cost.anomaly")]
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.keyboard.press("Escape")
    seen.page.get_by_role("button", name="I have kept it").click()
    expect(secret).to_have_count(0)
    assert seen.page.locator("main img, main script").count() == 0
    assert seen.said == []


def test_a_rule_is_added_and_muted(visit, product, overrun):
    seen = settle(visit(f"alerts?v=1&budget={overrun}"))
    seen.page.get_by_role("link", name="Add a rule", exact=True).click()
    form = seen.page.locator(".drawer form")
    expect(form.get_by_label("Budget")).to_have_value(str(overrun))
    form.get_by_label("Percent of the limit").fill("93")
    form.get_by_label("Name").fill("Nearly all")
    form.get_by_role("button", name="Add the rule").click()
    expect(seen.page.get_by_role("dialog")).to_have_count(0)
    seen.page.get_by_role("link", name="Spend reaches 93% of the limit").click()
    drawer = seen.page.get_by_role("dialog")
    drawer.get_by_text("Mute", exact=True).click()
    drawer.get_by_role("button", name="For a week").click()
    expect(drawer).to_contain_text("muted until")
    told = httpx.get(f"{product.url}api/v1/alerts/rules", timeout=30).json()["rules"]
    (rule,) = (one for one in told if one["name"] == "Nearly all")
    assert rule["threshold"] == "0.93"
    assert rule["muted_until"]
    assert seen.said == []
