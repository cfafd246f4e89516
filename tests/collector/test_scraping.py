"""Counters of real servers end up in hours exactly once, whoever restarts, falls silent or talks nonsense meanwhile."""

import itertools
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from structlog.testing import capture_logs

from millicent.collector import scraping
from millicent.collector.meter_reading import REASONS
from millicent.collector.scraping import Scraper
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.engine import EngineError
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import METERED, meter_hours

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, MINUTE, SECOND, STEP = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1), timedelta(seconds=15)
PATIENCE_S = 60
TOKENS = ("prompt_tokens", "cached_tokens", "output_tokens", "requests", "prefill_us", "decode_us")
_names = (f"rack-{n}" for n in itertools.count())


class Site:
    """A warehouse, and scrapers that come and go; `now` is what they are told the time is."""

    def __init__(self, directory):
        self.warehouse = Warehouse.embedded(directory, memory_limit="256MB")
        self.now = TEN
        self.scraper = Scraper(self.warehouse)

    def declare(self, *metrics, name=None, since=TEN - 100 * HOUR, **told):
        name = name or next(_names)
        one = Deployment(
            name=name, model="llama", accelerator="nvidia-h100-sxm", accelerator_count=2, effective_from=since,
            profile={"kind": "rented", "usd_per_hour": "2"}, metrics=tuple(metrics), **told,
        )  # fmt: skip
        self.warehouse.control.declare(one)
        return name

    def look(self, times=1, step=STEP):
        for _ in range(times):
            self.scraper.look(self.now)
            self.now += step

    def commit(self):
        self.scraper.commit()

    def kill(self):
        """End it as a crash does: what was not committed is gone."""
        self.scraper = Scraper(self.warehouse)

    def hours(self, deployment=None):
        """What is stored, by hour, source and role; what no row tells is None."""
        rows = self.warehouse.engine.read(select(meter_hours)).to_pylist()
        found = {}
        for row in rows:
            if deployment in {None, row["deployment"]}:
                of = found.setdefault((row["hour"], row["source"], row["role"]), dict.fromkeys(METERED))
                for name in METERED:
                    if row[name] is not None:
                        of[name] = (of[name] or 0) + row[name]
        return found

    def total(self, deployment=None):
        """The same over all hours, sources and roles."""
        whole = dict.fromkeys(METERED)
        for of in self.hours(deployment).values():
            for name, value in of.items():
                whole[name] = whole[name] if value is None else (whole[name] or 0) + value
        return whole


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "data")
    yield made
    made.warehouse.close()


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


# ---- energy


def test_boards_are_counted_once_for_the_deployment_that_they_belong_to(site, fake_engine):
    exporter = fake_engine("dcgm")
    boards = ("GPU-a", "GPU-b", "GPU-mig")
    exporter.draw(**dict.fromkeys(boards, 10**12))
    both = site.declare(name="both", dcgm=(exporter.url,), gpus=("GPU-a", "GPU-mig"))
    rest = site.declare(name="rest", dcgm=(exporter.url,), gpus=("GPU-b",))
    site.look()
    for n in range(10):
        exporter.draw(**{"GPU-a": 4_000_000 + n, "GPU-b": 3_000_000, "GPU-mig": 500})
        site.look()
    site.commit()
    assert site.total(both)["millijoules"] == 10 * 4_000_000 + 45 + 10 * 500
    assert site.total(rest)["millijoules"] == 10 * 3_000_000
    assert site.hours(rest)[TEN, "dcgm", None]["counted_ms"] == 150_000
    assert site.total(rest)["observed_ms"] is None


def test_members_of_a_pool_share_boards_that_are_counted_once(site, fake_engine):
    exporter = fake_engine("dcgm")
    exporter.draw(**{"GPU-a": 5, "GPU-b": 5})
    for name in ("a", "b"):
        site.declare(name=name, pool="p", dcgm=(exporter.url,))
    site.look()
    exporter.draw(**{"GPU-a": 100, "GPU-b": 100})
    site.look()
    site.commit()
    assert site.total()["millijoules"] == 200


def test_a_board_that_two_pools_claim_is_nobodys_until_one_names_it(site, fake_engine):
    exporter, again = fake_engine("dcgm"), fake_engine("dcgm")
    for fake in (exporter, again):
        fake.draw(**{"GPU-a": 5, "GPU-b": 5})
    one = site.declare(name="one", dcgm=(exporter.url,))
    site.declare(name="two", dcgm=(exporter.url,), gpus=("GPU-b",))
    other = site.declare(name="three", dcgm=(again.url,))
    for _ in range(2):
        exporter.draw(**{"GPU-a": 100, "GPU-b": 1})
        site.look()
    site.commit()
    assert site.total()["millijoules"] == 1
    assert site.total(one)["millijoules"] is None is site.total(other)["millijoules"]
    assert site.scraper.failures["shared_board"] == 4


def test_a_second_exporter_of_the_same_boards_does_not_stand_in_for_the_first(site, fake_engine):
    first, second = fake_engine("dcgm"), fake_engine("dcgm")
    for exporter in (first, second):
        exporter.draw(**{"GPU-a": 1000})
    site.declare(dcgm=(first.url, second.url))
    site.look()
    first.down()
    for exporter in (first, second):
        exporter.draw(**{"GPU-a": 7})
    site.look(2)
    first.up()
    site.look()
    site.commit()
    whole = site.total()
    assert whole["millijoules"] == 7
    assert whole["counted_ms"] == 45_000  # the board drew on while its exporter was away
    assert whole["unavailable_ms"] is None


def test_tritons_joules_are_measured_where_no_exporter_is_declared(site, fake_engine):
    triton, exporter = fake_engine("triton_trtllm"), fake_engine("dcgm")
    alone = site.declare(triton.url, name="alone")
    for fake in (triton, exporter):
        fake.draw(**{"GPU-a": 1000})
    site.look()
    triton.draw(**{"GPU-a": 123_456})
    triton.running = 1
    site.look(2)
    site.commit()
    of = site.hours(alone)
    assert of[TEN, "dcgm", None]["millijoules"] == 123_456
    assert of[TEN, "triton_trtllm", None]["busy_ms"] == 15_000


# ---- what goes wrong


@pytest.mark.parametrize(
    ("mode", "reason", "down"),
    [
        ("loading", "unavailable", True),
        ("broken", "unavailable", True),
        ("slow", "timeout", True),
        ("cut", "unreachable", True),
        ("denied", "status", False),
        ("moved", "status", False),
        ("nonsense", "not_counters", False),
        ("huge", "too_large", False),
    ],
)
def test_every_failure_has_its_reason_and_only_engines_that_are_gone_are_unavailable(
    site, fake_engine, monkeypatch, mode, reason, down
):
    monkeypatch.setattr(scraping, "TIMEOUT_S", 0.3)
    site.kill()
    fake, well = fake_engine("vllm"), fake_engine("vllm")
    name, other = site.declare(fake.url), site.declare(well.url)
    site.look()
    fake.mode = mode
    site.look(2)
    fake.go_on.set()
    fake.mode = "up"
    site.look()
    site.commit()
    assert dict(site.scraper.failures) == {reason: 2}
    assert reason in REASONS
    whole = site.total(name)
    assert whole["unavailable_ms"] == (30_000 if down else 0)
    assert whole["observed_ms"] == (45_000 if down else 15_000)
    assert site.total(other)["observed_ms"] == 45_000
    assert site.scraper.scrapes == 8


def test_an_address_that_never_answered_may_be_wrong_unless_it_says_no(site, fake_engine, monkeypatch):
    monkeypatch.setattr(scraping, "TIMEOUT_S", 0.2)
    site.kill()
    silent, refusing = fake_engine("vllm"), fake_engine("vllm")
    silent.mode = "slow"
    refusing.down()
    wrong, down = site.declare(silent.url, "http://nowhere.invalid/metrics"), site.declare(refusing.url, engine="vLLM")
    site.look(3)
    silent.go_on.set()
    site.commit()
    assert site.total(wrong)["observed_ms"] is None
    assert site.hours(down)[TEN, "vllm", None]["unavailable_ms"] == 30_000
    assert dict(site.scraper.failures) == {"timeout": 3, "unreachable": 3, "refused": 3}
    assert dict(site.scraper.targets) == {"read": 0, "unavailable": 1, "failed": 2}


def test_a_change_of_state_is_logged_once_not_every_look(site, fake_engine):
    fake = fake_engine("vllm")
    site.declare(fake.url, name="rack")
    with capture_logs() as logs:
        site.look(3)
        fake.down()
        site.look(3)
        fake.up()
        site.look(3)
    told = [(one["log_level"], one["deployment"], one.get("reason")) for one in logs if one.get("url") == fake.url]
    assert told == [("warning", "rack", "refused"), ("info", "rack", None)]


def test_a_refused_value_keeps_the_rest_and_says_that_not_all_was_read(site, fake_engine):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    site.look()
    fake.serve(prompt=10, output=5)
    good = fake.rewrite
    fake.rewrite = lambda text: text.replace("} 10.0", "} NaN")
    site.look()
    site.commit()
    assert counted(site.total(), "prompt_tokens", "output_tokens", "counted_ms") == {
        "prompt_tokens": None, "output_tokens": 5, "counted_ms": None,
    }  # fmt: skip
    fake.rewrite = good
    site.look()
    site.commit()
    assert counted(site.total(), "prompt_tokens", "output_tokens", "counted_ms") == {
        "prompt_tokens": 10, "output_tokens": 5, "counted_ms": 30_000,
    }  # fmt: skip
    assert dict(site.scraper.failures) == {"bad_value": 1}


@pytest.mark.parametrize("durable", [False, True])
def test_a_failed_commit_loses_and_doubles_nothing_whether_it_happened_or_not(site, fake_engine, monkeypatch, durable):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    site.look()
    site.commit()
    fake.serve(prompt=10, output=5)
    site.look()
    add = scraping.metered.add

    def failing(*told):
        if durable:
            add(*told)
        raise EngineError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(scraping.metered, "add", failing)
        if durable:
            site.commit()
        else:
            with pytest.raises(EngineError):
                site.commit()
    fake.serve(prompt=1, output=1)
    site.look()
    site.commit()
    whole = site.total()
    assert (whole["prompt_tokens"], whole["output_tokens"], whole["observed_ms"]) == (11, 6, 30_000)


def test_a_clock_that_goes_back_is_waited_for(site, fake_engine):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    site.look(4)
    site.now -= timedelta(minutes=10)
    site.look(2)
    site.commit()
    assert site.total()["observed_ms"] == 45_000


# ---- as a thread


def until(condition):
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_runs_until_told_to_stop_and_stores_what_it_read_last(site, fake_engine, monkeypatch):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    scraper, stop = Scraper(site.warehouse, every_s=0.01, commit_every_s=0.05), threading.Event()
    good, failed = site.warehouse.control.deployments, []

    def failing(*told):
        if len(failed) < 3:
            failed.append(True)
            raise RuntimeError("locked")
        return good(*told)

    monkeypatch.setattr(site.warehouse.control, "deployments", failing)
    thread = threading.Thread(target=scraper.run, args=(stop,))
    with capture_logs() as logs:
        thread.start()
        until(lambda: fake.looks >= 2)
        fake.serve(prompt=33, output=5)
        until(lambda: site.total()["prompt_tokens"] == 33)
        fake.serve(prompt=4, output=5)
        seen = fake.looks
        until(lambda: fake.looks >= seen + 2)
        stop.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert site.total()["prompt_tokens"] == 37
    assert [one["event"] for one in logs if one["log_level"] == "error"] == ["reading counters failed"] * 3


def test_nothing_declared_is_nothing_to_do(site):
    site.look(2)
    site.commit()
    assert site.hours() == {}
