"""Every page, in both themes and on both screens: quiet, within reach, and only text where text was told."""

import csv
import io
import json
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.sync_api import expect

from millicent.dashboard.app import PAGES

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".browser" / "axe.min.js"
PICTURES = ROOT / "artefacts"
SCREENS = {"1440x900": (1440, 900), "390x844": (390, 844)}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
PAINTED = "main .card :is(strong, tbody tr, input, pre, li, h2) >> visible=true"

PAYLOADS = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "<svg/onload=alert(1)>",
    "</title><script>alert(1)</script>", '"><b id=injected>x</b>', "'><i id=injected>x</i>", "javascript:alert(1)",
    "{{7*7}}", "${7*7}", "%{x}", "%3Cscript%3E", "&lt;b&gt;", '=HYPERLINK("http://evil.example")', "+1+1", "-1+1",
    "@SUM(1)", "\t=1", "a,b;c|d", "a\\b", "a\"b'c`d", "../../etc/passwd", "null", "__proto__", "constructor",
    "undefined", "NaN", "true", "0", " lead and trail ", "*[x](y)*", "\u202eright to left", "e\u0301\u0302\u0303",
    "\u200bzero\u200bwidth", "\U0001f4a9 emoji", "日本語モデル", "مرحبا", "x" * 300, "<!-- -->", "]]>",
    "<style>*{display:none}</style>",
)  # fmt: skip
HOSTILE = [text if at == 0 else f"{text} {at}" for at in range(5) for text in PAYLOADS]
"""200 names that try to be more than a name."""


STILL = "dash_clientside.millicent.tick = () => dash_clientside.no_update"
"""Nothing is asked again while we look."""
MARKUP = "#injected, img[src=x], svg[onload], main script, main style, b[id], [onerror], [onload]"


@pytest.fixture(scope="module")
def data(data, tmp_path_factory) -> Path:
    """A copy of the example company: what these calls add is not for other tests to see."""
    return shutil.copytree(data, tmp_path_factory.mktemp("attacked") / "data")


def settled(seen):
    """A page whose numbers are there, or that says why there are none, with nothing under way."""
    expect(seen.page.locator(PAINTED).first).to_be_visible()
    seen.page.evaluate(STILL)
    seen.quiet()
    seen.page.wait_for_load_state("networkidle")
    return seen.quiet()


def barriers(page) -> list[str]:
    """What axe finds serious or critical: rule, help and the first place."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("(tags) => axe.run(document, { runOnly: tags, resultTypes: ['violations'] })", RULES)
    return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary'][:300]}"
            for one in found["violations"] if one["impact"] in {"serious", "critical"}]  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SCREENS))
def test_every_page_is_quiet_fits_and_has_no_barrier(visit, theme, size):
    assert AXE.is_file(), "missing: axe-core. Run: make browser"
    PICTURES.mkdir(exist_ok=True)
    width, height = SCREENS[size]
    troubles = {}
    for path, (title, _) in PAGES.items():
        seen = settled(visit(path.removeprefix("/"), theme=theme, width=width, height=height))
        seen.page.screenshot(path=PICTURES / f"{path.strip('/') or 'overview'}-{theme}-{size}.png")
        found = [*seen.said, *seen.foreign, *barriers(seen.page)]
        if seen.page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"):
            found.append("the page is wider than the screen")
        if seen.page.title() != title:
            found.append(f"its title is {seen.page.title()!r}, not {title!r}")
        if seen.page.evaluate("document.documentElement.dataset.theme") != theme:
            found.append("it has the other theme")
        if found:
            troubles[path] = found
        seen.page.context.close()
    assert troubles == {}, json.dumps(troubles, indent=1)


@pytest.fixture(scope="module")
def attacked(product):
    """The product after calls of each hostile name as team, feature, customer, project, service and environment.

    One of them is of a model that has a price; the other one's model has the name, too.
    """
    request, now = ExportTraceServiceRequest(), time.time_ns()
    named = ("millicent.team", "millicent.feature", "millicent.customer", "millicent.environment",
             "millicent.project", "user.id", "error.type")  # fmt: skip
    for number, text in enumerate([*HOSTILE, *HOSTILE], start=7000):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = text
        span = resource.scope_spans.add().spans.add(
            name=text, trace_id=number.to_bytes(16), span_id=number.to_bytes(8),
            start_time_unix_nano=now - 2 * 10**9, end_time_unix_nano=now - 10**9,
        )  # fmt: skip
        model = text if number < 7000 + len(HOSTILE) else "gpt-5-mini"
        texts = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": model}
        for key, value in {**texts, **dict.fromkeys(named, text)}.items():
            span.attributes.add(key=key).value.string_value = value
        for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            span.attributes.add(key=key).value.int_value = 50_000_000 - number
    sent = httpx.post(f"http://127.0.0.1:{product.otlp_port}/v1/traces", content=request.SerializeToString(),
                      headers={"content-type": "application/x-protobuf"})  # fmt: skip
    assert sent.status_code == 200, sent.text
    until = time.monotonic() + 60
    while len(product.query(measures="calls", group_by="project", period="7d")) <= len(HOSTILE):
        assert time.monotonic() < until, "the calls did not come"
        time.sleep(0.1)
    return product


def narrowed(names) -> str:
    """Only these teams; space around a name is cut off where calls are read."""
    return "?v=1&p=7d&" + "&".join(f"team={quote(name.strip(), safe='')}" for name in names)


def test_hostile_names_are_text_on_every_page(visit, attacked):
    assert len(HOSTILE) == 200
    troubles = {}
    first = HOSTILE[: len(PAYLOADS)]
    for path in PAGES:
        seen = settled(visit(path.removeprefix("/") + narrowed(first)))
        found = [*seen.said, *seen.foreign]
        found += [node.evaluate("node => node.outerHTML") for node in seen.page.locator(MARKUP).all()]
        if found:
            troubles[path] = found
        seen.page.context.close()
    assert troubles == {}, json.dumps(troubles, indent=1)


@pytest.mark.parametrize("batch", range(5))
def test_hostile_names_are_shown_as_they_are(visit, attacked, batch):
    names = HOSTILE[batch * len(PAYLOADS) : (batch + 1) * len(PAYLOADS)]
    seen = settled(visit(narrowed(names)))
    expect(seen.page.locator(".teams tbody th")).to_have_count(len(names))
    shown = {" ".join(text.split()) for text in seen.page.locator(".teams tbody th").all_text_contents()}
    assert {" ".join(name.split()) for name in names} == shown
    assert seen.said == []
    assert seen.page.locator(MARKUP).count() == 0


def test_hostile_names_are_text_in_a_spreadsheet(attacked):
    asked = {"measures": "calls", "group_by": "team", "period": "7d", "format": "csv"}
    answer = httpx.get(f"{attacked.url}api/v1/query", params=asked, timeout=30)
    cells = [row[0] for row in csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))]
    assert '\'=HYPERLINK("http://evil.example")' in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
