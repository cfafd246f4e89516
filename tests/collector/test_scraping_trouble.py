"""Boards' energy is counted once, and what goes wrong costs nothing but its own figures and has a reason."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from millicent.collector import scraping
from millicent.collector.loader import Loader
from millicent.collector.meter_reading import REASONS
from millicent.collector.spool import SpoolReader
from millicent.dashboard.telemetry import Telemetry
from millicent.warehouse.engine import EngineError

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)


def counted(whole, *names):
    return {name: whole[name] for name in names}


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


def test_a_board_that_moves_to_another_deployment_is_counted_there(site, fake_engine):
    exporter = fake_engine("dcgm")
    exporter.draw(**{"GPU-a": 5, "GPU-b": 5})
    hour = timedelta(hours=1)
    site.declare(name="one", dcgm=(exporter.url,), gpus=("GPU-a", "GPU-b"))
    site.look(2)
    site.declare(name="one", dcgm=(exporter.url,), gpus=("GPU-a",), since=TEN + hour)
    site.declare(name="two", dcgm=(exporter.url,), gpus=("GPU-b",), since=TEN + hour)
    site.now = TEN + hour
    for _ in range(3):
        exporter.draw(**{"GPU-a": 100, "GPU-b": 10})
        site.look()
    site.commit()
    assert (site.total("one")["millijoules"], site.total("two")["millijoules"]) == (300, 20)


def test_tritons_joules_are_measured_where_no_exporter_is_declared(site, fake_engine):
    triton, other, exporter = fake_engine("triton_trtllm"), fake_engine("triton_trtllm"), fake_engine("dcgm")
    alone = site.declare(triton.url, name="alone")
    both = site.declare(other.url, name="both", dcgm=(exporter.url,))
    for fake, board in ((triton, "GPU-a"), (other, "b"), (exporter, "GPU-b")):
        fake.draw(**{board: 1000})
    site.look()
    triton.draw(**{"GPU-a": 123_456})
    other.draw(b=777)
    exporter.draw(**{"GPU-b": 789})
    triton.running = 1
    site.look(2)
    triton.down()
    site.look(2)
    site.commit()
    of = site.hours(alone)
    assert counted(of[TEN, "dcgm", None], "millijoules", "counted_ms") == {
        "millijoules": 123_456, "counted_ms": 30_000,  # what it drew since is not known
    }  # fmt: skip
    assert counted(of[TEN, "triton_trtllm", None], "busy_ms", "unavailable_ms") == {
        "busy_ms": 30_000, "unavailable_ms": 15_000,
    }  # fmt: skip
    assert site.total(both)["millijoules"] == 789


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
    fake, gone = fake_engine("vllm"), fake_engine("vllm")
    name = site.declare(fake.url)
    site.declare(gone.url)
    site.look()
    site.commit()
    gone.down()
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
    whole = site.total(name)
    assert (whole["prompt_tokens"], whole["output_tokens"], whole["observed_ms"]) == (11, 6, 30_000)


class Balancer:
    """Two replicas behind one address, asked in turns; each serves 5 tokens of prompt before it answers."""

    def __init__(self, fake, one, other):
        self.both, self.url = (one, other), fake.url
        self.turns = itertools.cycle(self.both)
        fake.rewrite = self.answer

    def answer(self, _):
        fake = next(self.turns)
        fake.serve(prompt=5, output=1)
        return fake.text()


@pytest.fixture
def balancer(fake_engine, fake_engine_module):
    one, other = (fake_engine_module.FakeEngine("vllm") for _ in range(2))
    one.serve(prompt=10_000_000, output=10)
    return Balancer(fake_engine("vllm"), one, other)


def test_replicas_behind_one_address_are_found_out(site, balancer):
    site.declare(balancer.url)
    site.look(40)
    site.commit()
    assert site.scraper.failures["several_processes"] > 30
    assert site.total()["counted_ms"] < 120_000  # so little of an hour that its tokens are not used
    before = site.total()["prompt_tokens"]
    site.look(10)
    site.commit()
    assert site.total()["prompt_tokens"] == before
    assert site.total()["observed_ms"] == 49 * 15_000


def test_replicas_behind_one_address_that_tell_when_they_began_are_told_apart(site, balancer):
    for fake, ago in zip(balancer.both, (2, 1), strict=True):
        fake.started = (TEN - timedelta(hours=ago)).timestamp()
    next(balancer.turns)  # the younger answers first
    site.declare(balancer.url)
    site.look(20)
    site.commit()
    site.kill()
    site.look(20)
    site.commit()
    assert site.total()["prompt_tokens"] == (40 - 2) * 5
    assert site.scraper.failures == {}


def test_a_clock_that_goes_back_is_waited_for(site, fake_engine):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    site.look(4)
    site.now -= timedelta(minutes=10)
    site.look(2)
    site.commit()
    assert site.total()["observed_ms"] == 45_000


def test_how_it_goes_is_in_the_telemetry_of_the_platform(site, fake_engine, tmp_path):
    fake = fake_engine("vllm")
    site.declare(fake.url)
    site.look()
    fake.down()
    site.look()
    spool = SpoolReader(tmp_path / "spool")
    text = Telemetry(site.warehouse, spool, Loader(site.warehouse, spool), None, site.scraper).text()
    assert "millicent_scrapes_total 2.0" in text
    assert 'millicent_scrape_failures_total{reason="refused"} 1.0' in text
    assert 'millicent_scrape_targets{outcome="unavailable"} 1.0' in text
