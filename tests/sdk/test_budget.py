"""Guarded calls: what an app sees of budgets that say yes, no, or nothing at all. The server here says what it is told.

Real budgets behind a real server: tests/dashboard/test_budget_guard.py.
"""

import asyncio
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest

from millicent.sdk import (
    BudgetExceeded,
    BudgetGuard,
    TokenUsage,
    attribution,
    budget,
    instrument,
    leases,
    sdk_stats,
    track_tokens,
)

SEARCH = {"id": 1, "name": "Search", "decision": "deny", "currency": "EUR", "spent": "9.98", "reserved": "0.04",
          "limit": "10", "resets_at": "2026-12-01T00:00:00Z"}  # fmt: skip
NO = {"decision": "deny", "reason": "budget Search: 9.98 EUR spent", "reservation": None, "calls": 0,
      "budgets": [SEARCH], "dimensions": ["team"]}  # fmt: skip
RESULT = {"usage": {"prompt_tokens": 12, "completion_tokens": 5}, "object": "chat.completion", "model": "m-2026-01-01"}


class Server:
    """Grants what is asked for, unless `answer` is set; keeps what it was asked and told."""

    def __init__(self):
        self.checks, self.settled, self.keys, self.changed = [], [], [], threading.Condition()
        self.answer, self.most, self.left = None, 64, 10**9
        self.status, self.open, self.arrived, ids = 200, threading.Event(), threading.Event(), count(1)
        self.open.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                server.arrived.set()
                server.open.wait(20)
                with server.changed:
                    server.keys.append(self.headers["authorization"])
                    status, said = server.check(told, next(ids)) if "tags" in told else server.settle(told)
                    server.changed.notify_all()
                content = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def check(self, told, number):
        self.settle({"settlements": told.pop("settlements", [])})
        self.checks.append(told)
        if self.answer is not None:
            return self.status, self.answer
        granted = min(told["calls"], self.most, self.left)
        self.left -= granted
        if not granted:
            return self.status, NO
        return self.status, {**NO, "decision": "allow", "reason": None, "reservation": f"rsv_{number}",
                             "calls": granted, "budgets": []}  # fmt: skip

    def settle(self, told):
        self.settled += told["settlements"]
        bad = any("usage" in one and one["usage"].get("model") == "odd" for one in told["settlements"])
        return (400, {"detail": "odd"}) if bad else (200, {"settled": len(told["settlements"]), "unknown": []})

    def until(self, ready):
        with self.changed:
            assert self.changed.wait_for(ready, 20), (self.checks, self.settled)


@pytest.fixture
def server(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("OTEL_", "MILLICENT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(budget, "_shared", {})
    monkeypatch.setattr(budget, "_warned", {})
    monkeypatch.setattr(budget, "_instrumented", {})
    monkeypatch.setattr(budget, "_instrument_key", None)
    monkeypatch.setattr(leases, "AGAIN_S", 0.05)
    server = Server()
    yield server
    server.open.set()
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def guard(server):
    return lambda mode="block", **told: BudgetGuard(mode, **{"endpoint": server.url, "timeout_s": 20, **told})


@pytest.fixture
def nobody():
    """An address where nobody answers, and connections are refused."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def silent():
    """An address where connections are taken and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def kinds(guard, ran, **tags):
    """The same guarded call as every kind of function, and as blocks."""

    @track_tokens(budget=guard, model="m", **tags)
    def function():
        ran.append("function")
        return RESULT

    @track_tokens(budget=guard, model="m", **tags)
    async def coroutine():
        ran.append("coroutine")
        return RESULT

    @track_tokens(budget=guard, model="m", **tags)
    def generator():
        ran.append("generator")
        yield RESULT

    @track_tokens(budget=guard, model="m", **tags)
    async def async_generator():
        ran.append("async_generator")
        yield RESULT

    def block():
        with guard:
            ran.append("block")

    async def async_block():
        async with guard:
            ran.append("async_block")

    async def consume():
        return [item async for item in async_generator()]

    return {
        "function": function, "coroutine": lambda: asyncio.run(coroutine()), "generator": lambda: list(generator()),
        "async_generator": lambda: asyncio.run(consume()), "block": block,
        "async_block": lambda: asyncio.run(async_block()),
    }  # fmt: skip


KINDS = tuple(kinds(None, []))
TRACKED = KINDS[:4]


@pytest.mark.parametrize("kind", KINDS)
def test_a_no_is_an_exception_that_tells_all_and_the_call_is_not_made(server, guard, spans, kind):
    server.answer, ran, before = NO, [], sdk_stats()["budget_denied"]
    with pytest.raises(BudgetExceeded, match=r"not called: budget Search: 9.98 EUR spent") as no:
        kinds(guard(), ran)[kind]()
    told = no.value
    assert (told.budget, told.spend, told.reserved, told.limit) == (
        "Search", Decimal("9.98"), Decimal("0.04"), Decimal(10),
    )  # fmt: skip
    assert (told.currency, told.resets_at) == ("EUR", datetime(2026, 12, 1, tzinfo=UTC))
    assert (ran, spans(), sdk_stats()["budget_denied"]) == ([], [], before + 1)
    again = pickle.loads(pickle.dumps(told))
    assert (str(again), again.budget, again.resets_at) == (str(told), told.budget, told.resets_at)


@pytest.mark.parametrize("kind", TRACKED)
def test_a_call_that_is_made_tells_what_it_used(server, guard, spans, kind):
    ran, made = [], guard()
    with attribution(customer="acme"):
        kinds(made, ran, team="search")[kind]()
    assert made.flush(20)
    assert ran == [kind]
    assert server.checks[0]["tags"] == {"team": "search", "customer": "acme", "model": "m"}
    (told,) = server.settled
    assert told["id"] == "rsv_1"
    usage = {name: told["usage"][name] for name in ("model", "input_tokens", "output_tokens")}
    assert usage == {"model": "m-2026-01-01", "input_tokens": 12, "output_tokens": 5}
    assert spans.only.attributes["millicent.team"] == "search"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["nobody", "silent"])
def test_where_nobody_answers_calls_are_made_or_not_as_the_app_chose(server, request, kind, where):
    url, ran = request.getfixturevalue(where), []
    told = {"endpoint": url, "timeout_s": 0.05}
    before = sdk_stats()["budget_unchecked"]
    kinds(BudgetGuard(**told), ran)[kind]()
    kinds(BudgetGuard("warn", on_failure="closed", **told), ran)[kind]()
    with pytest.raises(BudgetExceeded, match=r"no budget could be asked \(.+\), and calls are not made then") as no:
        kinds(BudgetGuard(on_failure="closed", **told), ran)[kind]()
    assert (no.value.budget, no.value.limit) == (None, None)
    assert ran == [kind, kind]
    assert sdk_stats()["budget_unchecked"] == before + 3


def test_a_server_that_is_silent_costs_one_wait(server, silent):
    guard, began = BudgetGuard(endpoint=silent, timeout_s=0.3), time.monotonic()
    for _ in range(50):
        with guard as held:
            assert held.decision == "unchecked"
    assert time.monotonic() - began < 3


def test_a_server_that_comes_back_is_not_asked_what_nobody_waits_for_any_more(server, guard):
    server.open.clear()
    made = guard(timeout_s=0.02)
    for customer in range(40):
        with attribution(customer=f"c{customer}"), made as held:
            assert held.decision == "unchecked"
    server.open.set()
    server.until(lambda: server.checks)
    with attribution(customer="new"):
        while True:
            with made as held:
                if held.decision == "allow":
                    break
    assert len(server.checks) < 20


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (200, b"<html>", "JSONDecodeError"),
        (200, [], "TypeError"),
        (200, {}, "KeyError"),
        (503, {"detail": "the database failed"}, "503 the database failed"),
        (403, b"no", "403 and no reason"),
    ],
)
def test_an_answer_that_is_none_is_none(server, guard, status, answer, words):
    server.status, server.answer = status, answer
    with guard() as held:
        assert held.decision == "unchecked"
        assert words in held.reason
    with pytest.raises(BudgetExceeded, match="no budget could be asked"), guard(on_failure="closed"):
        raise AssertionError


def test_it_asks_again_until_there_is_an_answer(server, guard):
    server.status, server.answer, made = 503, {}, guard()
    with made as held:
        assert held.decision == "unchecked"
    server.status, server.answer = 200, NO
    with pytest.raises(BudgetExceeded):  # as soon as it has been asked
        while True:
            with made:
                time.sleep(0.01)


def test_a_guard_that_warns_makes_the_call_and_says_so_once(server, guard, caplog):
    server.answer, made = NO, guard("warn")
    for _ in range(3):
        with made as held:
            assert (held.decision, held.reason) == ("deny", NO["reason"])
    assert [record.message for record in caplog.records] == [f"A budget is reached: {NO['reason']}"]
    server.answer = {**NO, "decision": "warn", "reservation": "rsv_9", "calls": 1}
    with guard("block", estimate_usd=1) as held:
        assert held.decision == "warn"


# ---- leases


def test_calls_share_leases_and_what_is_not_used_is_given_back(server, guard):
    made = guard(staleness_s=600)
    for _ in range(100):
        with made:
            pass
    assert [told["calls"] for told in server.checks] == [1, 2, 4, 8, 16, 32, 64]
    assert made.flush(20)
    used = sum(one.get("calls", 1) for one in server.settled if not one.get("unused"))
    unused = sum(one["calls"] for one in server.settled if one.get("unused"))
    assert (used, unused) == (100, 27)


def test_what_is_stale_is_asked_again_and_given_back(server, guard):
    server.most = 8
    made = guard(staleness_s=0.05)
    for _ in range(4):
        with made:
            pass
    server.until(lambda: sum(one.get("calls", 1) for one in server.settled) == sum(c["calls"] for c in server.checks))
    before = len(server.checks)
    with made:
        pass
    assert len(server.checks) == before + 1


def test_without_staleness_every_call_asks(server, guard):
    made = guard(staleness_s=0)
    for _ in range(5):
        with made:
            pass
    assert [told["calls"] for told in server.checks] == [1] * 5


def test_a_no_holds_for_a_second_at_most(server, guard, monkeypatch):
    monkeypatch.setattr(leases, "REFUSED_S", 0.02)
    server.answer, made = NO, guard(staleness_s=600)
    with pytest.raises(BudgetExceeded), made:
        raise AssertionError
    server.answer = None
    time.sleep(0.03)
    with made as held:
        assert held.decision == "allow"


def test_calls_alike_in_what_budgets_look_at_share_a_lease(server, guard):
    made = guard(staleness_s=600)
    server.most = 64
    for customer in range(20):
        with attribution(team="search", customer=f"c{customer}"), made:
            pass
    assert [one["tags"] for one in server.checks[1:]] == [{"team": "search"}] * (len(server.checks) - 1)
    assert len(server.checks) < 8


@pytest.mark.parametrize("way", ["threads", "tasks"])
def test_no_more_calls_are_made_at_once_than_were_granted(server, guard, way):
    server.left, made, ran = 100, guard(), []

    def call(_):
        for _ in range(4):
            try:
                with made:
                    ran.append(1)
            except BudgetExceeded:
                return

    async def task():
        for _ in range(4):
            try:
                async with made:
                    ran.append(1)
            except BudgetExceeded:
                return

    async def tasks():
        await asyncio.gather(*(task() for _ in range(64)))

    if way == "threads":
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(call, range(64)))
    else:
        asyncio.run(tasks())
    assert made.flush(20)
    unused = sum(one["calls"] for one in server.settled if one.get("unused"))
    assert len(ran) + unused == 100


def test_an_event_loop_goes_on_while_a_call_waits(server, guard):
    server.open.clear()
    made = guard()

    async def opened():
        server.open.set()

    async def both():
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(made.__aenter__())
            await asyncio.sleep(0)
            group.create_task(opened())

    asyncio.run(both())
    assert len(server.checks) == 1


def test_a_task_that_is_cancelled_while_it_waits_takes_no_money(server, guard):
    server.open.clear()
    made = guard(staleness_s=0)

    async def cancelled():
        waiting = asyncio.create_task(made.__aenter__())
        assert await asyncio.to_thread(server.arrived.wait, 20)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancelled())
    server.open.set()
    server.until(lambda: server.settled)
    assert server.settled == [{"id": "rsv_1", "calls": 1, "unused": True}]


# ---- what a call cost


def test_a_call_that_was_refused_by_its_provider_used_nothing(server, guard):
    made = guard()

    @track_tokens(budget=made)
    def refused():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        refused()
    made.flush(20)
    assert server.settled == [{"id": "rsv_1", "unused": True}]


def test_a_block_may_tell_what_it_used_or_cost(server, guard):
    made = guard(estimate_usd=Decimal("0.02"), model="m", provider="openai", staleness_s=0)
    with made as held:
        held.used(TokenUsage(input_tokens=3, units={"web_searches": 2}), model="m")
    with made as held:
        held.cost("0.015")
    with made as held:
        held.cost("a lot")  # is noted, and nothing else
        held.used(TokenUsage(input_tokens=-1))
    made.flush(20)
    told = [{name: value for name, value in one.items() if name != "id"} for one in server.settled]
    assert told == [
        {"usage": {"input_tokens": 3, "units": {"web_searches": 2}, "model": "m"}},
        {"cost_usd": "0.015"},
        {},
    ]
    assert server.checks[0]["estimate_usd"] == "0.02"
    assert server.checks[0]["tags"] == {"model": "m", "provider": "openai"}


def test_usage_that_the_server_does_not_take_is_left_out(server, guard):
    made = guard()
    with made as held:
        held.used(TokenUsage(input_tokens=3), model="odd")
    assert made.flush(20)
    server.until(lambda: len(server.settled) == 2)
    assert server.settled[1] == {"id": "rsv_1"}


# ---- settings


def test_the_key_and_the_tags_are_those_of_instrument(server, guard, collector, monkeypatch):
    monkeypatch.setenv("MILLICENT_BUDGET_ENDPOINT", server.url.removeprefix("http://"))
    handle = instrument(collector.url, "mk_1", team="search", labels={"a": "b"})
    try:
        with BudgetGuard(timeout_s=20) as held:
            assert held.decision == "allow"
        with guard(key="mk_2", estimate_usd=1):
            pass
    finally:
        handle.shutdown()
    assert server.keys[:1] + server.keys[-1:] == ["Bearer mk_1", "Bearer mk_2"]
    assert server.checks[0]["tags"] == {"team": "search"}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"mode": "stop"}, "budget mode 'stop' is unknown"),
        ({"on_failure": "shut"}, "on_failure 'shut' is unknown"),
        ({"estimate_usd": "x"}, "'x' is no amount"),
        ({"estimate_usd": -1}, "-1 is no amount"),
        ({"staleness_s": -1}, "staleness_s -1 is not 0 to 3600"),
        ({"timeout_s": float("nan")}, "timeout_s nan is not"),
        ({"hold_s": 0}, "hold_s 0 is not"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(told, words):
    with pytest.raises(ValueError, match=words):
        BudgetGuard(**told)
    with pytest.raises(ValueError, match="'stop' is unknown"):
        track_tokens(budget="stop")


def test_a_mistyped_wish_in_the_environment_is_taken_for_closed(server, nobody, monkeypatch, caplog):
    monkeypatch.setenv("MILLICENT_BUDGET_ON_FAILURE", "close")
    with pytest.raises(BudgetExceeded), BudgetGuard(endpoint=nobody):
        raise AssertionError
    assert "is taken for closed" in caplog.text
    monkeypatch.setenv("MILLICENT_BUDGET_ON_FAILURE", "OPEN")
    with BudgetGuard(endpoint=nobody) as held:
        assert held.decision == "unchecked"


def test_guards_made_for_single_calls_share_their_threads(server, guard):
    before = threading.active_count()
    for _ in range(30):
        with guard():
            pass
    assert threading.active_count() <= before + leases.WORKERS + len(server.checks)  # and those of the server


# ---- processes


def run(program, **environment):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MILLICENT_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_gives_back_at_its_exit_what_it_did_not_use(server):
    server.most = 64
    run(
        "from millicent.sdk import track_tokens\n"
        "@track_tokens(budget='block')\n"
        "def ask(): return {'input_tokens': 1}\n"
        "for _ in range(5): ask()\n",
        MILLICENT_BUDGET_ENDPOINT=server.url,
    )
    told = sum(one.get("calls", 1) for one in server.settled)
    assert told == sum(one["calls"] for one in server.checks)


def test_a_fork_asks_for_itself(server):
    out = run(
        "import os\n"
        "from millicent.sdk import BudgetGuard\n"
        "guard = BudgetGuard(timeout_s=20)\n"
        "with guard: pass\n"
        "with guard: pass\n"
        "if pid := os.fork():\n"
        "    os.waitpid(pid, 0)\n"
        "else:\n"
        "    with guard as held: print(held.decision, flush=True)\n"
        "    guard.flush(20)\n"
        "    os._exit(0)\n",
        MILLICENT_BUDGET_ENDPOINT=server.url,
    )
    assert out == "allow\n"
    assert len(server.checks) == 3
    assert sum(one.get("calls", 1) for one in server.settled) == sum(one["calls"] for one in server.checks)


def test_an_app_without_budgets_imports_nothing_for_them():
    program = "import millicent.sdk, sys; print([m for m in ('http.client', 'decimal', 'asyncio') if m in sys.modules])"
    assert run(program) == "[]\n"
    assert logging.getLogger("millicent.sdk").level == logging.NOTSET
