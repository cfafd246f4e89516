"""The real product with the example company's two months, and a browser that tells all that it hears."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from playwright.sync_api import Browser, Page, TimeoutError, expect, sync_playwright  # noqa: A004 - theirs
from sqlalchemy import text

from millicent.dashboard import cli
from millicent.dashboard.settings import Settings
from millicent.warehouse.store import Warehouse

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "a,b|c & 100% {team} \u202eodd"]
expect.set_options(timeout=PATIENCE_S * 1000)
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
NOW_NS = time.time_ns()
RETOLD = (("same_response", "<i>other</i> instrumentation"), ("engine_of_counted_call", "vllm"))


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
        for key, value in texts.items():
            span.attributes.add(key=key).value.string_value = value
        for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            span.attributes.add(key=key).value.int_value = 10_000_000
    return request.SerializeToString()


def retell(data: Path) -> None:
    """Add to the dearest call of yesterday what else told of it, as counting would have stored it, and doubts to it."""
    warehouse = Warehouse.embedded(data)
    yesterday = "counted AND started_at >= CURRENT_DATE - 1 AND started_at < CURRENT_DATE"
    dearest = f"{yesterday} AND list_cost_usd = (SELECT max(list_cost_usd) FROM calls WHERE {yesterday})"
    retold = (
        "INSERT INTO calls BY NAME SELECT * REPLACE (:span AS span_id, false AS counted, "
        ":reason AS not_counted_reason, span_id AS counted_as, trace_id AS counted_as_trace_id, :scope AS scope) "
        "FROM calls WHERE "
    )
    marked = (
        "UPDATE calls SET usage_flags = ['cache_semantics_assumed', 'merged_from_others'], "
        "tag_sources = 'customer:inherited,environment:resource,feature:rule', usage_raw = :raw WHERE "
    )
    with warehouse.engine.write() as transaction:
        for span, (reason, scope) in enumerate(RETOLD, start=1):
            told = {"span": span, "reason": reason, "scope": scope}
            transaction.execute(text(retold + dearest).bindparams(**told))
        raw = '{"gen_ai.usage.input_tokens":1234,"note":"<b>bold</b>"}'
        transaction.execute(text(marked + dearest).bindparams(raw=raw))
    warehouse.close()


@dataclass
class Product:
    port: int
    otlp_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def otlp(self) -> str:
        return f"http://127.0.0.1:{self.otlp_port}"

    def query(self, **asked: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}api/v1/query", params=asked, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()["rows"]


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """The example company's two months."""
    filled = tmp_path_factory.mktemp("product") / "data"
    cli._fill(Settings(data=filled))
    retell(filled)
    return filled


@contextmanager
def serving(data: Path) -> Iterator[Product]:
    """The product on a directory, as long as the block lasts."""
    made = Product(free_port(), free_port())
    command = [sys.executable, "-m", "millicent.dashboard.cli", "up", "--insecure-local", "--data", data,
               "--port", str(made.port), "--otlp-port", str(made.otlp_port), "--grpc-port", "0"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: answers(f"{made.url}readyz") and answers(f"{made.otlp}/readyz"))
            yield made
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def product(data) -> Iterator[Product]:
    with serving(data) as made:
        sent = httpx.post(f"{made.otlp}/v1/traces", content=hostile_calls(),
                          headers={"content-type": "application/x-protobuf"})  # fmt: skip
        assert sent.status_code == 200, sent.text
        teams = {"measures": "calls", "group_by": "team", "period": "7d"}
        wait_for(lambda: set(HOSTILE) <= {row["team"] for row in made.query(**teams)})
        yield made


@pytest.fixture
def empty_product(tmp_path) -> Iterator[Product]:
    """The product before its first call."""
    with serving(tmp_path / "data") as made:
        yield made


@pytest.fixture(scope="module")  # as long as it is there, its event loop runs in this thread, and no other can
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
    home: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    got: dict[str, int] = field(default_factory=dict)

    def quiet(self) -> "Visit":
        """Wait until nothing is under way."""
        expect(self.page.locator("[data-dash-is-loading=true]")).to_have_count(0, timeout=PATIENCE_S * 1000)
        self.page.evaluate("document.fonts.ready")
        return self

    @property
    def foreign(self) -> list[str]:
        """Addresses of other hosts that were asked."""
        return [url for url in self.asked if not url.startswith((self.home, "data:", "blob:"))]


@contextmanager
def visiting(browser: Browser, product: Product) -> Iterator[Callable[..., Visit]]:
    """Opens pages of the product, and closes them when the block ends."""
    contexts = []

    def open_(search: str = "", *, theme: str = "light", width: int = 1440, height: int = 900) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        contexts.append(context)
        made = Visit(context.new_page(), product.url)
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


@pytest.fixture
def visit(browser, product) -> Iterator[Callable[..., Visit]]:
    with visiting(browser, product) as open_:
        yield open_


@pytest.fixture
def visit_empty(browser, empty_product) -> Iterator[Callable[..., Visit]]:
    with visiting(browser, empty_product) as open_:
        yield open_


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    return wait_for


def choose(page: Page, list_: str, *names: str) -> None:
    """Tick entries of a list; one that was drawn anew meanwhile, and so closed, is opened again."""
    for name in names:
        entry = page.get_by_role("option", name=name, exact=True)
        until = time.monotonic() + PATIENCE_S
        while True:
            if not entry.is_visible():
                page.locator(list_).click()
            try:
                entry.click(timeout=5000)
            except TimeoutError:
                assert time.monotonic() < until, f"{name} cannot be chosen"
            else:
                break
    page.keyboard.press("Escape")


@pytest.fixture(name="choose")
def choose_fixture() -> Callable[..., None]:
    return choose


CONTRAST = """(selector) => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = colour; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data]; };
  const over = ([r, g, b, a], under) => [r, g, b].map((one, at) => (one * a + under[at] * (255 - a)) / 255);
  const behind = (node) => { const stack = [];
    for (let at = node; at; at = at.parentElement) stack.push(rgba(getComputedStyle(at).backgroundColor));
    return stack.reverse().reduce((under, colour) => over(colour, under), [255, 255, 255]); };
  const light = (rgb) => { const [r, g, b] = rgb.map((one) => { const c = one / 255;
    return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const ratios = [...document.querySelectorAll(selector)].filter((node) => node.offsetParent && node.innerText.trim())
    .map((node) => { const under = behind(node), ink = over(rgba(getComputedStyle(node).color), under);
      const [high, low] = [light(ink), light(under)].sort((a, b) => b - a); return (high + .05) / (low + .05); });
  return ratios.length ? Math.min(...ratios) : 0;
}"""


@pytest.fixture
def contrast() -> Callable[[Visit, str], float]:
    """The least contrast of text with what is behind it, of everything that matches and shows."""
    return lambda seen, selector: seen.page.evaluate(CONTRAST, selector)


@pytest.fixture(params=HOSTILE)
def hostile(request) -> str:
    """A team's name that tries to be more than a name."""
    return request.param
