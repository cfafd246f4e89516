"""How soon pages answer, first and again, and what a visit weighs, beside one bare SQL statement in the same run.

    python benchmarks/dashboard.py [--calls 1000000] [--directory DIR] [--pages overview,teams] [--no-browser]

The facts are those of the example company, 56 days of some 0.95 million calls. For more, each call is stored as many
times over, in the same hour, with identifiers of its own: counts grow, days and names do not, as they would in a larger
company whose teams and models are as many. The product then runs as `millicent up` does. Every callback of every page
that depends on the period and filters is asked over HTTP, one at a time, for views that nobody saw before (cold), twice
again (warm), and once more after a call has arrived (moved on); what is to be reached is for all of these together. The
reference is what no page can be faster than: one statement that sums the spend of 28 days by day and team, on the same
file, with nothing around it.

The browser, where there is one, opens the Overview with an empty cache, and again with a full one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
from sqlalchemy import text

from millicent.dashboard import cli, serve
from millicent.dashboard.settings import Settings
from millicent.warehouse import rollups
from millicent.warehouse.store import Warehouse

TARGET_MS, FIRST_KB, AGAIN_KB, PAINT_MS, ANSWER_KB = 150, 1100, 60, 2500, 80
VIEWS = (
    "",
    "p=7d&vs=none",
    "p=12w&basis=billed",
    "team=Search",
    "p=mtd&model=qwen3-235b",
    "accelerator=nvidia-h100-sxm",
)
AGAIN = 2
TENANT = "default"
STARTED_WITHIN_S = 60
AGAIN_AND_AGAIN = """
    INSERT INTO calls BY NAME
    SELECT calls.* REPLACE (xor(span_id, (time::UBIGINT << 56)) AS span_id, uuid() AS trace_id)
    FROM calls, range(1, :times) AS again(time) WHERE started_at >= :start AND started_at < :end
"""
BARE = """
    SELECT date_trunc('day', hour), team, sum(billed_cost_usd) FROM usage_hourly
    WHERE tenant = 'default' AND hour >= :since GROUP BY ALL
"""


class Asked(NamedTuple):
    """One answer of one callback."""

    page: str
    callback: str
    ms: float
    sent: int
    size: int


def fill(directory: Path, count: int) -> int:
    """The example company's calls, so many times over that there are about `count`; returns how many there are."""
    cli._fill(Settings(data=directory))  # noqa: SLF001 - as `millicent demo` does
    warehouse = Warehouse.embedded(directory)
    days = "SELECT date_trunc('day', started_at) AS day, count(*) AS calls FROM calls GROUP BY ALL ORDER BY ALL"
    found = warehouse.engine.read(text(days)).to_pylist()
    there = sum(row["calls"] for row in found)
    times = max(1, round(count / there))
    for row in found if times > 1 else ():
        start, end = row["day"], row["day"] + timedelta(days=1)
        bounds = {"start": start.replace(tzinfo=None), "end": end.replace(tzinfo=None)}
        with warehouse.engine.write() as transaction:
            transaction.execute(text(AGAIN_AND_AGAIN).bindparams(times=times, **bounds))
            rollups.recount(transaction, TENANT, start, end)
    warehouse.engine.checkpoint()
    warehouse.close()
    return int(there * times)


def bare(directory: Path) -> float:
    """Milliseconds of the bare statement, the median of many."""
    warehouse = Warehouse.embedded(directory)
    since = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=28)
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        warehouse.engine.read(text(BARE).bindparams(since=since))
        took.append((time.perf_counter() - begun) * 1000)
    warehouse.close()
    return statistics.median(took)


@contextmanager
def product(directory: Path) -> Iterator[tuple[httpx.Client, str, int]]:
    """The product on ports of its own: a client of its pages, where calls are told, and its process."""
    ports = serve.with_ports(Settings(data=directory, port=0, otlp_port=0, grpc_port=0))
    told = [f"--{name.replace('_', '-')}={getattr(ports, name)}" for name in serve.PORTS]
    command = [sys.executable, "-m", "millicent.dashboard.cli", "up", "--insecure-local", "--data", directory, *told]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{ports.port}", timeout=120) as client:
                _wait_for(lambda: client.get("/readyz").is_success)
                yield client, f"http://127.0.0.1:{ports.otlp_port}", process.pid
        finally:
            process.terminate()


def _wait_for(what: Any) -> None:
    until = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            if what():
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > until:
            raise SystemExit(f"waited {STARTED_WITHIN_S} s in vain")
        time.sleep(0.05)


def callbacks(client: httpx.Client, pages: frozenset[str]) -> list[tuple[str, dict[str, Any]]]:
    """Page and description of what pages ask the server when the period or a filter changes."""
    found = []
    for one in client.get("/_dash-dependencies").json():
        scopes = [part["id"] for part in one["inputs"] if part["id"].rpartition("-")[2] == "scope"]
        if scopes and not one.get("clientside_function") and not one.get("prevent_initial_call"):
            page = scopes[0].rpartition("-")[0] or "overview"
            if not pages or page in pages:
                found.append((page, one))
    return found


def ask(client: httpx.Client, page: str, callback: dict[str, Any], view: str) -> Asked:
    """What the callback answers for a view, and how long that takes."""
    names = [part.rsplit(".", 1) for part in callback["output"].strip(".").split("...")]
    outputs = [{"id": name, "property": prop} for name, prop in names]
    inputs = [{**one, "value": _told(one["id"], view)} for one in callback["inputs"]]
    body = {
        "output": callback["output"], "outputs": outputs if callback["output"].startswith("..") else outputs[0],
        "inputs": inputs, "state": [{**one, "value": _told(one["id"], view)} for one in callback["state"]],
        "changedPropIds": [f"{inputs[0]['id']}.{inputs[0]['property']}"],
    }  # fmt: skip
    begun = time.perf_counter()
    answer = client.post("/_dash-update-component", json=body, headers={"sec-fetch-site": "same-origin"})
    took = (time.perf_counter() - begun) * 1000
    if answer.status_code not in {200, 204}:
        raise SystemExit(f"{callback['output']} answered {answer.status_code} to {view!r}: {answer.text[:500]}")
    return Asked(page, names[0][0], took, answer.num_bytes_downloaded, len(answer.content))


def _told(name: str, view: str) -> str | None:
    return f"?v=1&{view}" if name.rpartition("-")[2] == "scope" and view else None


def move_on(client: httpx.Client, otlp: str) -> None:
    """Let one call arrive, and wait until questions know of it."""
    count = {"measures": "calls", "period": "1h"}
    before = client.get("/api/v1/query", params=count).json()["rows"][0]["calls"] or 0
    one = {"id": uuid4().hex, "model": "gpt-5-mini", "provider": "openai", "input_tokens": 1, "output_tokens": 1}
    one["started_at"] = datetime.now(UTC).isoformat()
    answer = httpx.post(f"{otlp}/api/v1/calls", json=[one], timeout=10)
    answer.raise_for_status()
    _wait_for(lambda: (client.get("/api/v1/query", params=count).json()["rows"][0]["calls"] or 0) > before)


def cpu_s(process: int) -> float:
    """Seconds of processor that a process has used, its background jobs included; 0 where nobody tells."""
    try:
        user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def report(title: str, answers: list[Asked], reference: float, cpu_ms: float) -> float:
    """Print percentiles by page; returns the 95th over all."""
    print(f"{title}: {len(answers)} answers")
    by_page = defaultdict[str, list[Asked]](list)
    for one in answers:
        by_page[one.page].append(one)
    for page, mine in sorted(by_page.items()):
        slowest = max(mine, key=lambda one: one.ms)
        print(f"  {page:14} {_of([one.ms for one in mine])}   slowest {slowest.callback} {slowest.ms:.0f} ms")
    times = [one.ms for one in answers]
    ratio = statistics.median(times) / reference
    print(f"  {'all':14} {_of(times)}   median {ratio:.1f} x the bare statement, "
          f"{cpu_ms / len(answers):.0f} ms of processor each")  # fmt: skip
    return _percentile(times, 95)


def _of(times: list[float]) -> str:
    return f"p50 {statistics.median(times):6.0f} ms   p95 {_percentile(times, 95):6.0f} ms"


def _percentile(times: list[float], percent: int) -> float:
    return sorted(times)[min(len(times) - 1, len(times) * percent // 100)]


def visits(url: str) -> None:
    """Open the Overview twice, and print what came over the wire and when the headline stood."""
    found = subprocess.run(
        [Path(__file__).parents[1] / "tests/browser/chromium"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        print("browser: none here, so no weight and no paint")
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - where there is a browser

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found.stdout.split()[-1], args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        for title, most in (("first visit", FIRST_KB), ("second visit", AGAIN_KB)):
            page = context.new_page()
            wire = context.new_cdp_session(page)
            wire.send("Network.enable")
            got: list[float] = []
            wire.on("Network.loadingFinished", lambda one, got=got: got.append(one["encodedDataLength"]))
            page.goto(url)
            page.wait_for_selector(".kpi")
            painted = page.evaluate("performance.now()")
            first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
            page.wait_for_load_state("networkidle")
            weight = f"{sum(got) / 1024:.0f} KB in {len(got)} answers (reach {most})"
            print(f"{title}: {weight}, first paint {first:.0f} ms, headline {painted:.0f} ms (reach {PAINT_MS})")
            page.close()
        browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="kept, and used as it is where it is filled")
    parser.add_argument("--pages", default="", help="names of pages, comma between; all where left out")
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    scratch = nullcontext(options.directory) if options.directory else tempfile.TemporaryDirectory()
    with scratch as directory:
        data = Path(directory)
        if not (data / "millicent.duckdb").exists():
            begun = time.perf_counter()
            print(f"{fill(data, options.calls):,} calls stored in {time.perf_counter() - begun:.0f} s")
        reference = bare(data)
        print(f"reference: one bare statement, {reference:.1f} ms")
        with product(data) as (client, otlp, process):
            asked = callbacks(client, frozenset(options.pages.split(",")) - {""})
            p95, everything = {}, list[Asked]()
            for title, times in (("cold", 1), ("warm", AGAIN), ("moved on", 1)):
                if title != "warm":
                    move_on(client, otlp)
                used = cpu_s(process)
                answers = [ask(client, *one, view) for _ in range(times) for view in VIEWS for one in asked]
                p95[title] = report(title, answers, reference, (cpu_s(process) - used) * 1000)
                everything += answers
            p95["all"] = _percentile([one.ms for one in everything], 95)
            slow = sum(one.ms > TARGET_MS for one in everything)
            share = f"{slow} of {len(everything)} answers took longer"
            print(f"all together: p95 {p95['all']:.0f} ms (reach {TARGET_MS}), {share}")
            largest = max(everything, key=lambda one: one.sent)
            unpacked = f"{largest.size / 1024:.0f} KB unpacked"
            print(
                f"largest answer: {largest.callback}, {largest.sent / 1024:.0f} KB sent (reach {ANSWER_KB}), {unpacked}"
            )
            if not options.no_browser:
                visits(str(client.base_url))
    print(json.dumps({"p95_ms": {name: round(ms) for name, ms in p95.items()}, "reach_ms": TARGET_MS}))
    return 0 if p95["all"] <= TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
