"""What a guarded call waits for its budget, beside the same call unguarded, at the real product over loopback.

    python benchmarks/budget_guard.py [--calls 2000] [--callers 1 16]

The call answers at once, so all of its time is the SDK's. Each caller is a thread. `leases` has calls of five seconds
share answers, as they do by default; `each asks` has every call ask; `nobody answers` is a port that refuses
connections, `silent` one where nothing is ever answered. Calls that take no time use leases up faster than real ones.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from millicent.dashboard import serve
from millicent.dashboard.settings import Settings
from millicent.sdk import BudgetGuard, TokenUsage, sdk_stats, track_tokens

WARM_UP, STARTED_WITHIN_S = 50, 120
USED = TokenUsage(input_tokens=1200, output_tokens=300)
BUDGETS = ({"name": "Company"}, {"name": "Search", "filters": ["team:Search"]})


@contextmanager
def product(directory: Path) -> Iterator[str]:
    """The product with two budgets that a call counts for; its address."""
    ports = serve.with_ports(Settings(data=directory, port=0, otlp_port=0, grpc_port=0))
    told = [f"--{name.replace('_', '-')}={getattr(ports, name)}" for name in serve.PORTS]
    command = [sys.executable, "-m", "millicent.dashboard.cli", "up", "--insecure-local", "--data", directory, *told]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    url = f"http://127.0.0.1:{ports.port}"
    with subprocess.Popen(command, **quiet) as process:
        try:
            wait_until_ready(url)
            for budget in BUDGETS:
                body = {"amount": "1000000", "enforcement": "block", "effective_from": "2026-01-01", **budget}
                httpx.post(f"{url}/api/v1/budgets", json=body, headers={"origin": url}).raise_for_status()
            yield url
        finally:
            process.terminate()


def wait_until_ready(url: str) -> None:
    until = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"waited {STARTED_WITHIN_S} s in vain")


@contextmanager
def port(*, listening: bool) -> Iterator[str]:
    """An address where connections are refused, or taken and never answered."""
    taken = socket.create_server(("127.0.0.1", 0), backlog=64)
    address = f"http://127.0.0.1:{taken.getsockname()[1]}"
    if not listening:
        taken.close()
    yield address
    taken.close()


def call(guard: BudgetGuard | None) -> Callable[[], TokenUsage]:
    @track_tokens(team="Search", model="gpt-5-mini", provider="openai", budget=guard)
    def ask() -> TokenUsage:
        return USED

    return ask


def seconds(ask: Callable[[], TokenUsage], callers: int, calls: int) -> list[float]:
    """How long each call takes, of so many callers at once."""
    took: list[float] = []

    def caller() -> None:
        for _ in range(calls):
            began = time.perf_counter()
            ask()
            took.append(time.perf_counter() - began)

    for _ in range(WARM_UP):
        ask()
    threads = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


def shown(name: str, took: list[float], bare: list[float]) -> None:
    cuts, base = (statistics.quantiles(times, n=1000) for times in (took, bare))
    added = [(cuts[at] - base[at]) * 1000 for at in (499, 989)]
    print(
        f"{name:<16} p50 {cuts[499] * 1000:8.3f} ms   p99 {cuts[989] * 1000:8.3f} ms   most {max(took) * 1000:8.1f} ms"
        f"   added: p50 {added[0]:8.3f} ms   p99 {added[1]:8.3f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="calls that each caller makes")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 16], help="callers at once")
    told = parser.parse_args()
    trace.set_tracer_provider(TracerProvider())
    with (
        tempfile.TemporaryDirectory() as directory,
        product(Path(directory)) as url,
        port(listening=False) as nobody,
        port(listening=True) as silent,
    ):
        guards = {
            "leases": BudgetGuard(endpoint=url, timeout_s=5),
            "each asks": BudgetGuard(endpoint=url, timeout_s=5, staleness_s=0),
            "nobody answers": BudgetGuard(endpoint=nobody),
            "silent": BudgetGuard(endpoint=silent),
        }
        for callers in told.callers:
            print(f"-- {callers} caller{'s' if callers > 1 else ''}")
            bare = seconds(call(None), callers, told.calls)
            shown("unguarded", bare, bare)
            for name, guard in guards.items():
                calls = told.calls if name != "each asks" else max(100, told.calls // 10)
                shown(name, seconds(call(guard), callers, calls), bare)
        print(f"calls for which nobody answered in time: {sdk_stats()['budget_unchecked']:,} (those of the last two)")


if __name__ == "__main__":
    main()
