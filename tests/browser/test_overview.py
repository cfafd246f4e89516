"""The Overview in a real browser, on the real product with the example company's two months."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from millicent.dashboard import cli
from millicent.dashboard import format as fmt
from millicent.dashboard.settings import Settings

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "artefacts"
PATIENCE_S = 60
HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "a,b|c & 100% {team} \u202eodd"]
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
FIRST_VISIT_BYTES, ANSWER_BYTES = 1_100_000, 80_000
NOW_NS = time.time_ns()


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < until, f"waited {PATIENCE_S} s in vain"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def hostile_calls() -> bytes:
    """A call of each team with a name that tries to be more than a name."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add()
    for number, team in enumerate(HOSTILE, start=1):
        span = spans.spans.add(name="chat", trace_id=number.to_bytes(16), span_id=number.to_bytes(8),
                               start_time_unix_nano=NOW_NS - 10**9, end_time_unix_nano=NOW_NS)  # fmt: skip
        texts = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
                 "gen_ai.request.model": "gpt-5-mini", "millicent.team": team}  # fmt: skip
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            span.attributes.add(key=key).value.int_value = 10_000_000
    return request.SerializeToString()


@dataclass
class Product:
    port: int
    otlp_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def query(self, **asked: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}api/v1/query", params=asked, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]


@pytest.fixture(scope="module")
def product(tmp_path_factory) -> Iterator[Product]:
    data = tmp_path_factory.mktemp("product") / "data"
    cli._fill(Settings(data=data))
    made = Product(free_port(), free_port())
    command = [sys.executable, "-m", "millicent.dashboard.cli", "up", "--insecure-local", "--data", data,
               "--port", str(made.port), "--otlp-port", str(made.otlp_port)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            otlp = f"http://127.0.0.1:{made.otlp_port}"
            wait_for(lambda: answers(f"{made.url}readyz") and answers(f"{otlp}/readyz"))
            sent = httpx.post(f"{otlp}/v1/traces", content=hostile_calls(),
                              headers={"content-type": "application/x-protobuf"})  # fmt: skip
            assert sent.status_code == 200, sent.text
            teams = {"measures": "calls", "group_by": "team", "period": "7d"}
            wait_for(lambda: set(HOSTILE) <= {row["team"] for row in made.query(**teams)})
            yield made
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = subprocess.run([ROOT / "tests/browser/chromium"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found.stdout.split()[-1], args=[*QUIET])
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page and all that it said, asked for and got."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    got: dict[str, int] = field(default_factory=dict)

    def settle(self) -> "Visit":
        """Wait until every number is there and nothing is under way."""
        expect(self.page.locator("#kpis .kpi strong")).to_have_count(6, timeout=PATIENCE_S * 1000)
        expect(self.page.locator(".teams tfoot tr")).to_have_count(1, timeout=PATIENCE_S * 1000)
        expect(self.page.locator("#chart g.trace")).not_to_have_count(0, timeout=PATIENCE_S * 1000)
        expect(self.page.locator("[data-dash-is-loading=true]")).to_have_count(0, timeout=PATIENCE_S * 1000)
        self.page.evaluate("document.fonts.ready")
        return self

    @property
    def spend(self) -> str:
        return self.page.locator("#kpi-spend_usd").get_attribute("title") or ""

    @property
    def exported(self) -> dict[str, str]:
        """What the Export link asks the API for."""
        asked = parse_qs(urlsplit(self.page.locator("#export").get_attribute("href")).query)
        return {key: ",".join(values) for key, values in asked.items()}


@pytest.fixture
def visit(browser, product) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def open_(search: str = "", *, theme: str = "light", width: int = 1440, height: int = 900) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        contexts.append(context)
        made = Visit(context.new_page())
        made.page.on("console", lambda message: made.said.append(f"{message.type}: {message.text}"))
        made.page.on("pageerror", lambda error: made.said.append(str(error)))
        made.page.on("dialog", lambda dialog: (made.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        made.page.on("request", lambda request: made.asked.append(request.url))
        made.page.on("requestfinished", lambda request: made.got.update(
            {request.url: request.sizes()["responseBodySize"]}))  # fmt: skip
        made.page.goto(product.url + search)
        return made

    yield open_
    for context in contexts:
        context.close()


def foreign(visit: Visit, product: Product) -> list[str]:
    return [url for url in visit.asked if not url.startswith((product.url, "data:", "blob:"))]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_quiet_and_asks_nobody_else(visit, product, theme):
    seen = visit(theme=theme).settle()
    PICTURES.mkdir(exist_ok=True)
    seen.page.screenshot(path=PICTURES / f"overview-{theme}-1440x900.png")

    assert seen.said == []
    assert foreign(seen, product) == []
    assert seen.page.evaluate("document.documentElement.dataset.theme") == theme


def test_the_totals_are_those_of_the_api(visit, product):
    seen = visit("?v=1&vs=none").settle()

    def agree() -> bool:
        """The hour that runs accrues idle, so both are asked until neither moved in between."""
        seen.page.reload()
        seen.settle()
        asked = seen.exported
        bounds = {key: asked[key] for key in ("start", "end", "basis")}
        (total,) = product.query(measures="spend_usd", **bounds)
        teams = product.query(measures="spend_usd", group_by="team", **bounds)
        with localcontext(prec=60):
            parts = sum(Decimal(row["spend_usd"]) for row in teams if row["spend_usd"] is not None)
        row = seen.page.locator(".teams tfoot td").first.get_attribute("title")
        return Decimal(total["spend_usd"]) == parts and fmt.usd_exact(parts) == seen.spend == row

    wait_for(agree)


def test_a_filter_is_an_address_that_can_be_shared_and_undone(visit):
    seen = visit("?v=1&p=7d").settle()
    everything = seen.spend

    seen.page.locator(".teams tbody a", has_text="Research").click()
    expect(seen.page.locator("#kpi-spend_usd")).not_to_have_attribute("title", everything)
    seen.settle()
    assert parse_qs(urlsplit(seen.page.url).query) == {"v": ["1"], "p": ["7d"], "team": ["Research"]}
    expect(seen.page.locator("#team")).to_contain_text("Research")
    narrowed = seen.page.locator(".teams tbody th").all_inner_texts()

    other = visit("?" + urlsplit(seen.page.url).query).settle()
    assert other.spend == seen.spend
    assert other.page.locator(".teams tbody th").all_inner_texts() == narrowed == ["Research"]

    seen.page.go_back()
    expect(seen.page.locator(".teams tbody tr")).not_to_have_count(1)
    expect(seen.page.locator("#team")).to_contain_text("Team: all")


def test_switches_write_the_address_and_ask_only_for_what_they_change(visit):
    seen = visit().settle()
    before = len(seen.asked)
    seen.page.locator("#cut label", has_text="Cost type").click()
    expect(seen.page.locator("#legend")).to_contain_text("Own hardware, busy")
    seen.settle()
    assert urlsplit(seen.page.url).query == "v=1&by=cost"
    assert len([url for url in seen.asked[before:] if "_dash-update-component" in url]) in {1, 4}  # 3 more: the clock

    seen.page.locator("#range label", has_text="MTD").click()
    expect(seen.page.locator("#words")).to_contain_text("compared with 1 ")
    assert urlsplit(seen.page.url).query == "v=1&p=mtd&by=cost"


def test_several_teams_are_chosen_from_the_list(visit):
    seen = visit("?v=1&p=7d").settle()
    seen.page.locator("#team").click()
    for team in ("Search", "Assistants"):
        seen.page.get_by_role("option", name=team, exact=True).click()
    seen.page.keyboard.press("Escape")
    expect(seen.page.locator(".teams tbody tr")).to_have_count(2)
    assert parse_qs(urlsplit(seen.page.url).query)["team"] == ["Search", "Assistants"]


def test_a_bar_leads_to_its_team(visit):
    seen = visit("?v=1&p=7d").settle()
    bar = seen.page.locator("#chart .barlayer .trace").first.locator("path").nth(2)
    box = bar.bounding_box()
    seen.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    assert "team" in parse_qs(urlsplit(seen.page.url).query)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_a_name(visit, name):
    seen = visit("?v=1&p=7d").settle()
    row = seen.page.locator(".teams tbody a").get_by_text(name, exact=True)
    expect(row).to_have_count(1)
    row.click()
    expect(seen.page.locator(".teams tbody tr")).to_have_count(1)
    seen.settle()
    assert parse_qs(urlsplit(seen.page.url).query)["team"] == [name]
    assert seen.page.locator(".legend li").first.inner_text() == name
    assert seen.page.locator("img[src=x]").count() == 0
    assert seen.said == []


def test_nothing_found_says_so_and_leads_out(visit):
    seen = visit("?v=1&team=nobody")
    expect(seen.page.locator(".empty")).to_contain_text("No calls match")
    seen.page.get_by_text("Clear the filters").click()
    seen.settle()
    assert urlsplit(seen.page.url).query == ""


def test_the_theme_is_kept_and_costs_no_request(visit):
    seen = visit().settle()
    before = [url for url in seen.asked if "_dash-update" not in url]
    seen.page.locator("[data-action=theme]").click()
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert [url for url in seen.asked if "_dash-update" not in url] == before
    seen.page.reload()
    assert seen.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_the_keyboard_reaches_everything_and_escape_closes(visit):
    seen = visit().settle()
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
    seen = visit("?v=1&p=7d").settle()
    seen.page.get_by_role("button", name="Show as a table").click()
    rows = seen.page.locator("#chart-table tbody tr")
    expect(rows).to_have_count(7)
    assert seen.page.locator("#chart-table thead th").last.inner_text() == "Total"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_a_telephone(visit, theme):
    seen = visit(theme=theme, width=390, height=844).settle()
    seen.page.screenshot(path=PICTURES / f"overview-{theme}-390x844.png", full_page=True)
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_first_visit_is_small(visit):
    seen = visit().settle()
    assert sum(seen.got.values()) <= FIRST_VISIT_BYTES
    assert max(size for url, size in seen.got.items() if "_dash-" in url and "suites" not in url) <= ANSWER_BYTES
