"""A budget that blocks, as apps meet it: the real product, calls through the real OTLP path, many callers at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import httpx
import pytest
from opentelemetry import trace

from millicent.sdk import BudgetExceeded, BudgetGuard, TokenUsage, instrument, leases, track_tokens

CALLERS, LIMIT = 64, Decimal(10)
USED = TokenUsage(input_tokens=10_000, output_tokens=2_500)
COST = Decimal("0.05")
"""Of a call of gpt-4o with so many tokens."""
TEAMS = {"Exact": ("0.05", 5), "Too little": ("0.03", 5), "Each asked": ("0.03", 0)}
"""What a call is expected to cost, and for how long an answer holds."""


@pytest.fixture(scope="module")
def product(make_instance, tmp_path_factory):
    """Running, with a budget of 10 USD for every team that spends here."""
    running = make_instance(tmp_path_factory.mktemp("budgets") / "data").start().wait_ready()
    for team in TEAMS:
        told = {"name": team, "amount": str(LIMIT), "filters": [f"team:{team}"], "enforcement": "block"}
        made = httpx.post(f"{running.url}/api/v1/budgets", json={**told, "effective_from": "2026-01-01"},
                          headers={"origin": running.url})  # fmt: skip
        assert made.status_code == 201, made.text
    yield running
    if running.process.poll() is None:
        running.kill()


@pytest.fixture
def sent(product, monkeypatch):
    """Calls are sent to the product."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    handle = instrument(product.otlp)
    yield
    handle.flush()
    handle.shutdown()


def spent(running, team: str) -> tuple[int, Decimal]:
    (row,) = running.get("query", measures="calls,spend_usd", filter=f"team:{team}", period="mtd")["rows"]
    return row["calls"] or 0, Decimal(row["spend_usd"] or 0)


def called(guard, team: str) -> int:
    """How many calls so many callers make until each is refused one."""
    made, lock = [], threading.Lock()

    @track_tokens(team=team, model="gpt-4o", provider="openai", budget=guard)
    def ask() -> TokenUsage:
        with lock:
            made.append(1)
        return USED

    def caller(_: int) -> None:
        while True:
            try:
                ask()
            except BudgetExceeded as no:
                assert no.budget == team  # noqa: PT017  # and nothing else stopped it
                return

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(caller, range(CALLERS)))
    assert guard.flush(20)
    return len(made)


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("team", TEAMS)
def test_many_callers_at_once_overshoot_by_no_more_than_is_said(product, wait_for, team):
    estimate, staleness_s = TEAMS[team]
    told = {"endpoint": product.url, "timeout_s": 20, "on_failure": "closed"}
    made = called(BudgetGuard(estimate_usd=estimate, staleness_s=staleness_s, **told), team)
    ahead = leases.MOST_CALLS if staleness_s else 0
    bound = (CALLERS + ahead) * (COST - Decimal(estimate))
    wait_for(lambda: spent(product, team)[0] == made)
    calls, usd = spent(product, team)
    assert usd == calls * COST
    assert usd <= LIMIT + bound
    assert usd > LIMIT / 4  # and money is not held back for nothing


def test_when_the_product_is_gone_calls_are_made_or_not_as_the_app_chose(product):
    told = {"endpoint": product.url, "timeout_s": 20, "staleness_s": 0}
    guards = {choice: BudgetGuard(on_failure=choice, **told) for choice in ("open", "closed")}
    for guard in guards.values():
        with guard as held:
            assert held.decision == "allow"
    product.kill()
    made, refused = [], []

    def caller(choice: str) -> None:
        try:
            with guards[choice]:
                made.append(choice)
        except BudgetExceeded as no:
            assert no.budget is None  # noqa: PT017  # nobody could say
            refused.append(choice)

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(caller, ["open", "closed"] * CALLERS))
    assert (made, refused) == (["open"] * CALLERS, ["closed"] * CALLERS)
