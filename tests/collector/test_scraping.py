"""Counters of real servers end up in hours exactly once, whoever restarts, falls silent or talks nonsense meanwhile."""

import contextlib
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from millicent.collector.scraping import Scraper

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MINUTE, SECOND, STEP = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1), timedelta(seconds=15)
PATIENCE_S = 60
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "requests", "prefill_us", "decode_us")


def counted(whole, *names):
    return {name: whole[name] for name in names or TOKENS}


def ever(fake):
    return {
        "prompt_tokens": fake.ever.prompt, "cached_tokens": fake.ever.cached, "output_tokens": fake.ever.output,
        "requests": fake.ever.requests, "prefill_us": round(fake.ever.prefill_s * 1e6),
        "decode_us": round(fake.ever.decode_s * 1e6),
    }  # fmt: skip


# ---- tokens are counted once


class Model:
    """What must be counted of an engine that tells when it began: the plainest bookkeeping there is."""

    def __init__(self):
        self.process = self.value = self.total = self.pending = 0
        self.memory = self.disk = None
        self.watched = None

    def look(self, now):
        self.watched = self.watched or now
        if self.memory is None:
            self.pending += self.value if self.process and self.began >= self.watched else 0
        elif self.memory[0] == self.process:
            self.pending += self.value - self.memory[1]
        else:
            self.pending += self.value
        self.memory = (self.process, self.value)

    def commit(self):
        self.total, self.pending, self.disk = self.total + self.pending, 0, self.memory

    def kill(self):
        self.pending, self.memory = 0, self.disk
        self.watched = None if self.disk is None else self.watched


acts = st.lists(
    st.sampled_from(["serve", "serve", "look", "look", "commit", "kill", "restart", "down", "wait"]), max_size=25
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts)
def test_whoever_restarts_whenever_every_token_is_counted_once(site, fake_engine_module, acts):
    site.kill()
    with fake_engine_module.FakeEngine("vllm", started=(site.now - HOUR).timestamp()) as fake:
        name, model = site.declare(fake.url), Model()
        fake.serve(1000, 100)
        model.value += 1000
        for act in acts:
            site.now += SECOND
            if act == "serve":
                fake.serve(prompt=7, output=3)
                model.value += 7
            elif act == "look":
                site.look()
                model.look(site.now - STEP)
            elif act == "down":
                fake.down()
                site.look()
                model.watched = model.watched or site.now - STEP
                fake.up()
            elif act == "commit":
                site.commit()
                model.commit()
            elif act == "kill":
                site.kill()
                model.kill()
            elif act == "wait":
                site.now += 2 * HOUR
            else:
                fake.restart(started=site.now.timestamp())
                model.process, model.value, model.began = model.process + 1, 0, site.now
        site.look()
        model.look(site.now - STEP)
        site.commit()
        model.commit()
        assert (site.total(name)["prompt_tokens"] or 0) == model.total
    for of in site.hours(name).values():
        assert (of["observed_ms"] or 0) <= HOUR / timedelta(milliseconds=1)
        assert (of["counted_ms"] or 0) <= HOUR / timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("engine", "tells"),
    [
        ("vllm", TOKENS),
        ("sglang", TOKENS[:4]),
        ("tensorrt_llm", TOKENS),
        ("tgi", ("prompt_tokens", "output_tokens", "prefill_us", "decode_us")),
        ("llamacpp", ("cached_tokens", "output_tokens", "prefill_us", "decode_us")),
        ("dynamo", TOKENS[:4]),
        ("lmdeploy", ("prompt_tokens", "output_tokens", "requests", "prefill_us", "decode_us")),
        ("vllm_mlx", ("prompt_tokens", "output_tokens")),
        ("aphrodite", ("prompt_tokens", "output_tokens")),
    ],
)
def test_totals_of_hours_are_the_engines_own(site, fake_engine, engine, tells):
    fake = fake_engine(engine)
    site.declare(fake.url, engine=engine)
    site.look(step=2 * MINUTE)
    for n in range(1, 40):  # over an hour
        fake.serve(prompt=100 + n, output=n, cached=3 * (n % 20), prefill_s=0.25, decode_s=1.5)
        site.look(step=2 * MINUTE)
        if n % 8 == 0:
            site.commit()
    site.commit()
    hours = site.hours()
    assert {hour for hour, _, _ in hours} == {TEN, TEN + HOUR}
    assert {source for _, source, _ in hours} == {engine}
    whole = site.total()
    assert counted(whole, *tells) == {name: ever(fake)[name] for name in tells}
    silent = {name for name in TOKENS if name not in tells} - ({"prompt_tokens"} if engine == "llamacpp" else set())
    assert {name for name in TOKENS if whole[name] is None} == silent
    if engine == "llamacpp":
        assert whole["prompt_tokens"] + whole["cached_tokens"] == fake.ever.prompt
    assert hours[TEN, engine, None]["counted_ms"] == hours[TEN, engine, None]["observed_ms"] == 3_600_000
    assert whole["resets"] == 0 or whole["resets"] is None


def test_an_engine_that_does_not_tell_when_it_began_is_found_to_have_begun_again(site, fake_engine):
    fake = fake_engine("llamacpp")
    site.declare(fake.url)
    site.look()
    fake.serve(prompt=500, output=50)
    site.look()
    fake.restart()
    fake.serve(prompt=30, output=3)
    site.look()
    site.commit()
    assert counted(site.total(), "prompt_tokens", "output_tokens", "resets") == {
        "prompt_tokens": 530, "output_tokens": 53, "resets": 1,
    }  # fmt: skip


def test_counters_that_appear_with_the_first_request_have_it(site, fake_engine):
    fake = fake_engine("sglang")
    site.declare(fake.url)
    site.look(2)
    fake.serve(prompt=900, output=10, cached=0)
    site.look()
    site.commit()
    site.kill()
    fake.serve(prompt=100, output=1, cached=60)
    site.look()
    site.commit()
    assert counted(site.total(), *TOKENS[:4]) == {name: ever(fake)[name] for name in TOKENS[:4]}


def test_what_an_engine_counted_before_anybody_looked_is_not_ours(site, fake_engine):
    fake = fake_engine("sglang")
    fake.serve(prompt=900, output=10)
    site.declare(fake.url)
    site.look(2)
    site.commit()
    assert site.total()["prompt_tokens"] == 0


def test_replicas_and_label_sets_do_not_hide_each_others_restarts(site, fake_engine):
    one, other = fake_engine("vllm"), fake_engine("vllm")
    site.declare(one.url, other.url)
    other.serve(prompt=10_000, output=10_000)
    site.look()
    for fake in (one, other):
        fake.serve(prompt=100, output=10)
    site.look()
    one.restart()
    one.serve(prompt=5, output=1)
    site.look()
    site.commit()
    assert site.total()["prompt_tokens"] == 205


def test_prefill_and_decode_are_told_apart(site, fake_engine):
    prefill, decode = fake_engine("vllm"), fake_engine("vllm")
    site.declare(f"prefill={prefill.url}", f"decode={decode.url}", prefill_count=1, decode_count=1)
    prefill.running = 1
    site.look()
    prefill.serve(prompt=700, output=1, prefill_s=3)
    decode.serve(prompt=700, output=90, decode_s=9)
    site.look()
    site.commit()
    of = site.hours()
    assert of[TEN, "vllm", "prefill"]["prompt_tokens"] == 700
    assert of[TEN, "vllm", "prefill"]["busy_ms"] == 15_000
    assert of[TEN, "vllm", "decode"]["output_tokens"] == 90
    assert of[TEN, "vllm", "decode"]["busy_ms"] == 0


def test_requests_are_counted_at_a_frontend_or_at_its_workers_never_at_both(site, fake_engine):
    front, worker = fake_engine("dynamo"), fake_engine("vllm")
    site.declare(worker.url, front.url)
    site.look()
    for fake in (front, worker):
        fake.serve(prompt=100, output=10, cached=60, prefill_s=0.5)
    site.look()
    front.down()
    site.commit()
    site.kill()  # who looks next cannot see that there is a frontend
    worker.serve(prompt=1, output=1)
    front.serve(prompt=1, output=1)
    site.look()
    front.up()
    site.look()
    site.commit()
    assert counted(site.total(), *TOKENS[:5]) == {
        "prompt_tokens": 101, "cached_tokens": 60, "output_tokens": 11, "requests": 2, "prefill_us": 500_000,
    }  # fmt: skip
    assert site.hours()[TEN, "vllm", None]["prompt_tokens"] is None


def test_only_what_is_declared_now_is_read(site, fake_engine):
    old, present, future = (fake_engine("vllm") for _ in range(3))
    site.declare(old.url, effective_to=TEN)
    site.declare(present.url, since=TEN)
    site.declare(future.url, since=TEN + HOUR)
    site.look(2)
    assert (old.looks, present.looks, future.looks) == (0, 2, 0)
    site.now = TEN + HOUR
    site.look()
    assert (old.looks, present.looks, future.looks) == (0, 3, 1)


# ---- time


def test_busy_idle_and_unavailable_add_up_to_what_was_seen(site, fake_engine):
    fake = fake_engine("vllm")
    name = site.declare(fake.url)
    site.look(4)
    fake.running = 2
    site.look(8)
    fake.running, fake.waiting = 0, 1
    site.look(2)
    fake.waiting = 0
    fake.down()
    site.look(3)
    fake.up()
    fake.mode = "loading"
    site.look(3)
    fake.mode = "nonsense"
    site.look(5)
    fake.mode = "up"
    site.look(2)
    site.commit()
    (of,) = site.hours(name).values()
    assert of["busy_ms"] == 10 * 15_000
    assert of["unavailable_ms"] == 6 * 15_000
    assert of["observed_ms"] == (4 + 10 + 6 + 1) * 15_000  # the last look tells of no time after it
    assert of["counted_ms"] == 26 * 15_000  # its counters rose on while nobody could read them


def test_states_survive_commits_and_cross_hours(site, fake_engine):
    fake = fake_engine("vllm")
    fake.running = 1
    site.declare(fake.url)
    site.now = TEN + HOUR - timedelta(seconds=40)
    for _ in range(6):
        site.look()
        site.commit()
    hours = site.hours()
    assert hours[TEN, "vllm", None]["busy_ms"] == 40_000
    assert hours[TEN + HOUR, "vllm", None]["busy_ms"] == 35_000


def test_a_pool_of_replicas_is_busy_while_any_is_and_unavailable_when_all_are(site, fake_engine):
    one, other = fake_engine("vllm"), fake_engine("vllm")
    site.declare(one.url, other.url)
    one.running = 1
    other.down()
    site.look(4)
    one.running = 0
    site.look(4)
    one.down()
    site.look(5)
    site.commit()
    whole = site.total()
    assert (whole["busy_ms"], whole["observed_ms"], whole["unavailable_ms"]) == (60_000, 180_000, 60_000)


def test_without_a_gauge_an_engine_is_busy_while_tokens_are_served(site, fake_engine):
    fake = fake_engine("tensorrt_llm")
    fake.rewrite = lambda text: "\n".join(x for x in text.splitlines() if "trtllm_num_requests" not in x) + "\n"
    site.declare(fake.url)
    site.look(3)
    for _ in range(2):
        fake.serve(prompt=10, output=1)
        site.look()
    site.look(2)
    site.commit()
    whole = site.total()
    assert (whole["busy_ms"], whole["observed_ms"]) == (30_000, 90_000)


def test_time_that_nobody_looked_is_not_observed_but_its_tokens_are_counted(site, fake_engine):
    fake = fake_engine("vllm", started=(TEN - HOUR).timestamp())
    fake.running = 1
    site.declare(fake.url)
    site.look(2)
    site.commit()
    site.kill()
    site.now = TEN + timedelta(minutes=30)
    fake.serve(prompt=1800, output=1)
    site.look(2)
    site.commit()
    whole = site.total()
    assert whole["prompt_tokens"] == 1800
    assert whole["observed_ms"] == whole["busy_ms"] == 30_000
    assert whole["gap_ms"] == 30 * 60_000 - 15_000
    assert whole["counted_ms"] == 30 * 60_000 + 15_000


def test_time_of_which_nobody_can_be_sure_is_not_counted_twice(site, fake_engine):
    well, ill = fake_engine("vllm"), fake_engine("vllm")
    site.declare(well.url, ill.url)
    site.look(2)
    ill.mode = "nonsense"
    site.look(2)
    site.commit()
    assert site.total()["counted_ms"] == 15_000
    site.kill()
    site.look()
    ill.mode = "up"
    site.look()
    site.commit()
    assert site.total()["counted_ms"] == 45_000


# ---- as a thread


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextlib.contextmanager
def running(scraper):
    stop = threading.Event()
    thread = threading.Thread(target=scraper.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_it_stores_now_and_then_and_what_it_read_last_when_told_to_stop(site, fake_engine):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    with running(Scraper(site.warehouse, every_s=0.01, commit_every_s=0.05)):
        until(lambda: fake.looks >= 2)
        fake.serve(prompt=33, output=5)
        until(lambda: site.total()["prompt_tokens"] == 33)
    with running(Scraper(site.warehouse, every_s=0.01, commit_every_s=3600)):
        fake.serve(prompt=4, output=5)
        seen = fake.looks
        until(lambda: fake.looks >= seen + 2)
        assert site.total()["prompt_tokens"] == 33
    assert site.total()["prompt_tokens"] == 37


def test_nothing_that_goes_wrong_ends_it(site, fake_engine, monkeypatch):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    good, failed = site.warehouse.control.deployments, []

    def failing(*told):
        if len(failed) < 3:
            failed.append(True)
            raise RuntimeError("locked")
        return good(*told)

    monkeypatch.setattr(site.warehouse.control, "deployments", failing)
    with capture_logs() as logs, running(Scraper(site.warehouse, every_s=0.01)):
        until(lambda: fake.looks >= 1)
    assert [one["event"] for one in logs if one["log_level"] == "error"] == ["reading counters failed"] * 3


def test_nothing_declared_is_nothing_to_do(site):
    site.look(2)
    site.commit()
    assert site.hours() == {}
