"""What surrounds every page, in a real browser: the menu of the view, saved views, the way to a number's calls, the
navigation on a phone, and the empty product up to its first priced call."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

PICTURES = Path(__file__).parents[2] / "artefacts"


def opened(seen):
    """The page with its menu open and everything in it."""
    expect(seen.page.locator("#view-face")).to_contain_text("·")
    seen.page.locator("#views > summary").click()
    expect(seen.page.locator("#view-body form[data-view=dates]")).to_be_visible()
    seen.page.wait_for_load_state("networkidle")  # it is asked for anew as it opens
    return seen.quiet()


def test_dates_are_chosen_kept_in_the_address_frozen_and_taken_back(visit):
    seen = opened(visit("requests"))
    page = seen.page
    today = datetime.now(UTC).date()
    first, last = today - timedelta(days=20), today - timedelta(days=11)
    page.locator("form[data-view=dates] [name=from]").fill(f"{first}")
    page.locator("form[data-view=dates] [name=to]").fill(f"{last}")
    page.locator("form[data-view=dates] button").click()
    expect(page).to_have_url(re.compile(rf"\?v=1&p={first}\.\.{last}$"))
    expect(page.locator("#requests-words")).to_contain_text(f"{last.day} {last:%b}")
    assert "Frozen" in page.locator("#view-body").inner_text()

    page.reload()
    opened(seen)
    expect(page.locator("form[data-view=dates] [name=from]")).to_have_value(f"{first}")
    page.get_by_role("button", name="Follow the latest 4 weeks").click()
    expect(page).to_have_url(re.compile(r"/requests$"))
    page.get_by_role("button", name="Freeze these dates").click()
    expect(page).to_have_url(re.compile(r"p=\d{4}-\d\d-\d\d\.\.\d{4}-\d\d-\d\d"))
    page.go_back()
    expect(page).to_have_url(re.compile(r"/requests$"))
    assert seen.said == []
    assert seen.foreign == []


def test_a_view_that_everybody_opens_with_is_saved_opened_and_deleted(visit):
    seen = opened(visit("requests?v=1&p=7d&sort=time"))
    page = seen.page
    page.locator(".saving [name=name]").fill("<b>Newest</b>")
    page.locator(".saving select").select_option("default")
    page.get_by_role("button", name="Save this view").click()
    expect(page.locator(".kept .name")).to_have_text("<b>Newest</b>")

    later = visit("requests")
    expect(later.page).to_have_url(re.compile(r"/requests\?v=1&p=7d&sort=time$"))
    later.page.locator("#requests-range label", has_text="12w").click()
    expect(later.page).to_have_url(re.compile(r"p=12w"))
    opened(later).page.get_by_role("button", name="Delete the view").click()
    expect(later.page.locator(".kept")).to_have_count(0)
    expect(visit("requests").quiet().page).to_have_url(re.compile(r"/requests$"))
    assert seen.said == later.said == []


def test_amounts_and_days_follow_a_rate_that_was_added_and_a_zone(visit):
    seen = visit("settings")
    page = seen.page
    form = page.locator("#currency-body form")
    for name, value in (("currency", "CHF"), ("usd_per_unit", "1.25"), ("effective_from", "2024-01-01"),
                        ("source", "a test")):  # fmt: skip
        form.locator(f"[name={name}]").fill(value)
    form.get_by_role("button").click()
    expect(page.locator("#settings-answer")).to_contain_text("1 CHF is 1.25 USD")

    opened(visit_ := visit("?v=1&p=7d&vs=none"))
    page = visit_.page
    page.locator("#views").get_by_role("button", name="CHF").click()
    expect(page).to_have_url(re.compile(r"cur=CHF"))
    expect(page.locator("#kpi-spend_usd")).to_contain_text("CHF ")
    page.locator("form[data-view=zone] [name=tz]").fill("Nowhere/At-all")
    page.locator("form[data-view=zone] button").click()
    assert "tz=" not in page.url
    page.locator("form[data-view=zone] [name=tz]").fill("Europe/Berlin")
    page.locator("form[data-view=zone] button").click()
    expect(page).to_have_url(re.compile(r"cur=CHF&tz=Europe%2FBerlin"))
    expect(page.locator("#view-face")).to_have_text("CHF · Berlin")
    expect(page.locator("#words")).to_contain_text("Europe/Berlin")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Requests", exact=True).click()
    expect(page.locator("#requests-words")).to_contain_text("Europe/Berlin")
    assert seen.said == visit_.said == []


def test_a_card_leads_to_what_its_number_is_made_of_and_to_its_calls(visit):
    seen = visit("?v=1&p=7d&team=Search")
    page = seen.page
    expect(page.locator("#kpi-spend_usd")).to_contain_text("$")
    page.locator(".kpi").first.hover()
    page.locator(".kpi .how summary").first.click()
    page.locator(".kpi .how .way").first.click()
    drawer = page.locator("#drawer section")
    expect(drawer).to_contain_text("Its sums, exactly")
    expect(drawer).to_be_focused()
    page.locator("#its-calls").click()
    expect(page).to_have_url(re.compile(r"/requests\?v=1&p=7d&team=Search$"))
    expect(page.locator(".calls tbody tr").first).to_be_visible()
    assert seen.quiet().said == []


def test_the_navigation_unfolds_on_a_phone_and_folds_when_a_page_was_chosen(visit):
    seen = visit("requests", width=390, height=844)
    page = seen.page
    menu = page.get_by_role("button", name="Menu")
    expect(page.locator(".sidebar .groups")).to_be_hidden()
    menu.click()
    expect(menu).to_have_attribute("aria-expanded", "true")
    page.get_by_role("link", name="Settings", exact=True).click()
    expect(page.locator("h1")).to_have_text("Settings")
    expect(page.locator(".sidebar .groups")).to_be_hidden()
    expect(page.locator("#keys-body p").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen.quiet().said == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_menu_and_the_settings_are_legible_in_both_themes(visit, contrast, theme):
    PICTURES.mkdir(exist_ok=True)
    seen = opened(visit("settings", theme=theme))
    expect(seen.page.locator("#keys-body p").first).to_be_visible()
    seen.page.screenshot(path=PICTURES / f"settings-{theme}-1440x900.png")
    assert contrast(seen, "#view-body :is(p, h3, span, button, small), .settings :is(td, th, p, small)") >= 4.5
    assert seen.said == []


def one_call(team: str) -> bytes:
    """A call of a model that has a price, as an OpenTelemetry exporter sends it."""
    now = time.time_ns()
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(
        name="chat", trace_id=(1).to_bytes(16), span_id=(1).to_bytes(8), start_time_unix_nano=now - 10**9,
        end_time_unix_nano=now,
    )  # fmt: skip
    texts = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
             "millicent.team": team}  # fmt: skip
    for key, value in texts.items():
        span.attributes.add(key=key).value.string_value = value
    for key, value in (("gen_ai.usage.input_tokens", 1200), ("gen_ai.usage.output_tokens", 300)):
        span.attributes.add(key=key).value.int_value = value
    return request.SerializeToString()


def test_from_the_empty_product_to_the_first_priced_call(visit_empty, empty_product):
    seen = visit_empty()
    page = seen.page
    expect(page.get_by_text("Watching for your first call")).to_be_visible()
    page.locator("#welcome-way label", has_text="OpenTelemetry").click()
    expect(page.locator(".way-otel pre")).to_contain_text(f"OTEL_EXPORTER_OTLP_ENDPOINT={empty_product.otlp}")
    expect(page.locator(".way-decorator")).to_be_hidden()

    sent = httpx.post(f"{empty_product.otlp}/v1/traces", content=one_call("<i>Search</i>"),
                      headers={"content-type": "application/x-protobuf"})  # fmt: skip
    assert sent.status_code == 200
    expect(page.locator("#first-cost")).to_have_text("$0.000900")
    expect(page.locator(".first")).to_contain_text("<i>Search</i>")
    assert seen.said == []
    assert seen.foreign == []
    page.locator("#welcome-enter").click()
    expect(page.locator("#kpi-spend_usd")).to_have_text("$0.000900")
