"""Each engine's own text, as it writes it, read by what its names mean; what no counter can say is left out."""

import contextlib
import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.collector.meter_reading import COUNTERS, UnreadableError, read_boards, read_engine
from millicent.pricing import catalog

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
BEGAN = (NOW - timedelta(hours=3)).timestamp() + 0.25
ALL = {"prompt_tokens": 150, "cached_tokens": 100, "output_tokens": 16, "requests": 2, "prefill_us": 350_000,
       "decode_us": 4_000_000}  # fmt: skip


def told(reading) -> dict[str, int]:
    """Sums by counter; every label set is a counter of its own."""
    assert len({(one.counter, one.series) for one in reading.counters}) == len(reading.counters)
    return {
        name: sum(one.value for one in reading.counters if one.counter == name)
        for name in COUNTERS
        if any(one.counter == name for one in reading.counters)
    }


def only(*names: str) -> dict[str, int]:
    return {name: ALL[name] for name in names}


@pytest.fixture
def served(fake_engine_module):
    """An engine that answered two requests: 150 tokens of prompt (100 of them cached), 16 of output."""

    def make(engine: str):
        fake = fake_engine_module.FakeEngine(engine, started=BEGAN)
        fake.serve(100, 9, 70, 0.25, 1.5)
        fake.serve(50, 7, 30, 0.1, 2.5)
        return fake

    return make


# ---- engines


@pytest.mark.parametrize(
    ("engine", "counted"),
    [
        ("vllm", ALL),
        ("sglang", only("prompt_tokens", "cached_tokens", "output_tokens", "requests")),
        ("tensorrt_llm", ALL),
        ("tgi", only("prompt_tokens", "output_tokens", "prefill_us", "decode_us")),
        ("llamacpp", only("cached_tokens", "output_tokens", "prefill_us", "decode_us") | {"prompt_tokens": 50}),
        ("dynamo", only("prompt_tokens", "cached_tokens", "output_tokens", "requests")),
        ("lmdeploy", only("prompt_tokens", "output_tokens", "requests", "prefill_us", "decode_us")),
        ("vllm_mlx", only("prompt_tokens", "output_tokens")),
        ("aphrodite", only("prompt_tokens", "output_tokens")),
        ("triton_trtllm", {}),
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_every_engine_is_read_by_its_own_names(served, engine, counted, declared):
    reading = read_engine(served(engine).text(), engine if declared else None, NOW)
    assert (reading.source, told(reading), reading.refused) == (engine, counted, ())
    assert reading.running == 0
    assert reading.fronts == (engine == "dynamo")


@pytest.mark.parametrize(
    "engine", ["vllm", "sglang", "tensorrt_llm", "triton_trtllm", "tgi", "llamacpp", "dynamo", "lmdeploy", "vllm_mlx"]
)
@pytest.mark.parametrize("what", ["running", "waiting"])
def test_a_request_that_runs_or_waits_is_seen(served, engine, what):
    fake = served(engine)
    setattr(fake, what, 1)
    assert read_engine(fake.text(), None, NOW).running >= 1


def test_a_process_tells_when_it_began_where_it_can(served):
    fake = served("vllm")
    assert read_engine(fake.text(), None, NOW).started == NOW - timedelta(hours=3) + timedelta(milliseconds=250)
    for useless in (None, 0.0, (NOW + timedelta(days=1)).timestamp(), float("nan")):
        fake.started = useless
        assert read_engine(fake.text(), None, NOW).started is None
    assert read_engine(served("llamacpp").text(), None, NOW).started is None


def without(text: str, *names: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(names))


def test_prefix_cache_hits_of_old_vllm_are_not_taken_for_cached_tokens(served):
    text = without(served("vllm").text(), "vllm:prompt_tokens_cached")
    assert told(read_engine(text, "vllm", NOW))["cached_tokens"] == 100  # by source
    older = without(text, "vllm:prompt_tokens_by_source")
    assert "vllm:prefix_cache_hits_total" in older
    assert "cached_tokens" not in told(read_engine(older, "vllm", NOW))


def test_old_versions_that_lack_a_counter_leave_it_unknown(served):
    bare = without(served("tensorrt_llm").text(), "trtllm_generation", "trtllm_num_requests")
    reading = read_engine(bare, "TensorRT-LLM", NOW)
    assert "output_tokens" not in told(reading)
    assert reading.running is None
    old = without(served("llamacpp").text(), "llamacpp:prompt_tokens_cached_total")
    assert told(read_engine(old, "llama.cpp", NOW)) == {k: v for k, v in (ALL | {"prompt_tokens": 50}).items()
                                                        if k not in {"cached_tokens", "requests"}}  # fmt: skip
    older = without(served("dynamo").text(), "dynamo_frontend_output_tokens_total")
    sequences = older + '\ndynamo_frontend_output_sequence_tokens_sum{model="m"} 16\n'
    assert told(read_engine(sequences, "dynamo", NOW))["output_tokens"] == 16


def test_sources_of_cached_tokens_are_counters_of_their_own(served):
    cached = [one for one in read_engine(served("sglang").text(), None, NOW).counters if one.counter == "cached_tokens"]
    assert sorted(one.value for one in cached) == [33, 67]


def test_replicas_behind_one_address_and_ranks_are_counters_of_their_own(served):
    text = served("vllm").text()
    both = text + text.replace('engine="0"', 'engine="1"')
    reading = read_engine(both, "vllm", NOW)
    assert told(reading) == {name: 2 * value for name, value in ALL.items()}
    assert len(reading.counters) == 2 * len(ALL)
    assert reading.models == ("meta-llama/Llama-3.3-70B-Instruct",)


def test_a_frontend_that_passes_workers_counters_on_is_read_as_the_frontend(served):
    text = served("dynamo").text() + served("vllm").text()
    assert read_engine(text, None, NOW).source == "dynamo"
    assert read_engine(text, "dynamo", NOW).source == "dynamo"


def test_another_engine_than_the_declared_one_is_read_by_what_is_there(served):
    assert read_engine(served("sglang").text(), "vllm", NOW).source == "sglang"
    assert read_engine(served("sglang").text(), "our own build", NOW).source == "sglang"


def test_newer_triton_backends_tell_tokens_and_all_tell_joules(served):
    fake = served("triton_trtllm")
    fake.draw(**{"GPU-0": 205_620_582})
    one, other = (
        f'nv_llm_{side}_token_len_sum{{model="m",response_metric_type="total_{side}_tokens",version="1"}}'
        for side in ("input", "output")
    )
    reading = read_engine(fake.text() + f"{one} 150\n{other} 16\n", "triton_trtllm", NOW)
    assert told(reading) == only("prompt_tokens", "output_tokens")
    assert reading.boards == {"GPU-0": 205_620_582}


def test_openmetrics_with_exemplars_and_timestamps_reads_the_same(served):
    lines = []
    for line in served("vllm").text().splitlines():
        plain = line.startswith("#") or "generation" not in line
        lines.append(line if plain else f'{line} 1790000000.5 # {{trace_id="4bf92f35"}} 0.67 1790000000.4')
    reading = read_engine("\n".join([*lines, "# EOF", ""]), "vllm", NOW)
    assert told(reading) == ALL


def test_an_engine_of_ones_own_is_read_by_the_names_in_the_catalogs_extension():
    text = """
        [[engine]]
        id = "dtr"
        prompt_tokens_metric = "dtr_in"
        prompt_metric_type = "histogram sum"
        prompt_includes_cached = "no"
        cached_tokens_metric = 'dtr_cache{result="hit"}'
        generation_tokens_metric = "dtr_out"
        requests_running_metric = "dtr_active"
        decode_time_metric = "dtr_decode_seconds"
        sources = ["own server"]
        verified = "own server read"
    """
    answer = (
        'dtr_in_bucket{le="+Inf"} 3\ndtr_in_sum 90\ndtr_in_count 3\ndtr_cache{result="hit"} 40\n'
        'dtr_cache{result="miss"} 999\ndtr_out_total 12\ndtr_active 2\ndtr_decode_seconds_total 1.5\n'
    )
    with pytest.raises(UnreadableError):
        read_engine(answer, "dtr", NOW)
    catalog.use(catalog.bundled().extended(text))
    try:
        for declared in ("dtr", None):
            reading = read_engine(answer, declared, NOW)
            assert (reading.source, reading.running) == ("dtr", 2)
            assert told(reading) == {
                "prompt_tokens": 90, "cached_tokens": 40, "output_tokens": 12, "decode_us": 1_500_000,
            }  # fmt: skip
    finally:
        catalog.use(None)


# ---- accelerators


def test_boards_are_told_once_each_however_many_instances_repeat_them(fake_engine_module):
    fake = fake_engine_module.FakeEngine("dcgm")
    fake.draw(**{"GPU-a": 15_152_422_938, "GPU-mig": 257_858_316})
    assert fake.text().count('UUID="GPU-mig"') == 4  # power and energy of two instances
    assert read_boards(fake.text()) == ({"GPU-a": 15_152_422_938, "GPU-mig": 257_858_316}, ())


def test_an_exporter_without_energy_says_what_to_add():
    with pytest.raises(UnreadableError, match="DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION") as error:
        read_boards('DCGM_FI_DEV_POWER_USAGE{gpu="0",UUID="GPU-a"} 61.2\n')
    assert error.value.reason == "not_counters"


# ---- what cannot be


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-5", "1e300"])
def test_a_value_that_no_counter_has_is_left_out_with_its_reason_and_the_rest_is_read(served, value):
    text = served("vllm").text().replace('prompt_tokens_total{engine="0",model_name="meta-llama/Llama-3.3-70B-Instruct'
                                         '"} 150.0', 'prompt_tokens_total{engine="0"} ' + value)  # fmt: skip
    reading = read_engine(text, "vllm", NOW)
    assert told(reading) == {name: value for name, value in ALL.items() if name != "prompt_tokens"}
    (why,) = reading.refused
    assert "vllm:prompt_tokens_total" in why
    assert "no counter can" in why


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "an empty answer"),
        ("<!doctype html><title>Welcome</title>", "begins with '<!doctype html>"),
        ('[{"gpuMemUsage": 5, "iter": 1}]', "/prometheus/metrics"),
        ("vllm:prompt_tokens_total{engine= 5\n", "one line cannot be read"),
        ("vllm:prompt_tokens_total many\n", "one line cannot be read"),
        ("go_goroutines 8\n", "no counter of a known engine"),
        ("\x00\x01\x02", "no counter of a known engine"),
    ],
)
def test_an_answer_that_is_no_counters_is_refused_with_what_it_looks_like(answer, says):
    with pytest.raises(UnreadableError, match=re.escape(says)) as error:
        read_engine(answer, "vllm", NOW)
    assert error.value.reason == "not_counters"


@given(st.text(max_size=300) | st.text('vllm:prompt_tokens_total{}",= \n#0123456789.eNaI+-', max_size=300))
def test_whatever_is_answered_is_read_or_refused(text):
    for read in (lambda: read_engine(text, "vllm", NOW), lambda: read_boards(text)):
        with contextlib.suppress(UnreadableError):
            read()


@given(st.integers(0, 2**53))
def test_whole_numbers_stay_whole_as_long_as_text_has_them_whole(value):
    (one,) = read_engine(f"vllm:prompt_tokens_total {float(value)!r}\n", "vllm", NOW).counters
    assert one.value == value
