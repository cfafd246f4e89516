"""Energy counters: read now and then, sent as `hw.energy`, and never in the app's way."""

import os
import socket
import sys
import threading
import time

import pytest

from millicent.sdk import hardware, instrument, sdk_stats, track_tokens

pytestmark = pytest.mark.usefixtures("no_app_provider")


@pytest.fixture
def machine(fake_nvml_module, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", None)

    def be(name=None, *amd):
        made = fake_nvml_module.FakeNvml(name) if name else fake_nvml_module.FakeAmdSmi(*amd)
        monkeypatch.setitem(sys.modules, made.__name__, made)
        return made

    return be


def over(handle):
    """Whether the reading thread has ended by itself."""
    return handle._energy.join(20)


def plain(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def readings(collector, count):
    """(hw.id, joules) of each point of the first so many exports."""
    return [
        [(plain(point.attributes)["hw.id"], point.as_double) for point in metric.sum.data_points]
        for _, metric in collector.exports(count)[:count]
    ]


def test_counters_are_sent_as_they_are_by_opentelemetrys_conventions(collector, machine):
    machine("b200")
    before = time.time_ns()
    handle = instrument(collector.url, "mk_1", energy=True, deployment="oss-b200", service="shop", team="search")
    (resource, metric), *_ = collector.exports(1)
    handle.shutdown()
    request = collector.requests[0]
    assert (request.path, request.headers["authorization"]) == ("/v1/metrics", "Bearer mk_1")
    told = {"millicent.deployment": "oss-b200", "service.name": "shop", "millicent.team": "search"}
    assert resource | told == resource
    assert (metric.name, metric.unit, metric.sum.is_monotonic, metric.sum.aggregation_temporality) == (
        *("hw.energy", "J", True, 2),
    )
    first, second = metric.sum.data_points
    assert plain(first.attributes) == {
        "hw.id": "GPU-000000b1-5f0e-4c61-9d2a-00000015633f",
        "hw.type": "gpu",
        "hw.name": "NVIDIA B200",
        "hw.vendor": "NVIDIA",
    }
    # The first look is whether there is a counter at all; each adds 142,800 mJ.
    assert (first.as_double, second.as_double) == (1_204_377_143.312, 1_204_377_143.313)
    assert first.start_time_unix_nano == 0
    assert before <= first.time_unix_nano <= time.time_ns()


def test_it_is_read_again_and_again_until_a_last_time_at_the_end(collector, machine, monkeypatch):
    monkeypatch.setattr("millicent.sdk.energy.EnergyReader.__init__.__defaults__", (0.01,))
    nvml = machine("consumer")
    nvml.devices[0] |= {"energy_mj": 1000, "step_mj": 1000}
    handle = instrument(collector.url, energy=True)
    collector.exports(5)
    handle.shutdown()
    told = [joules for ((_, joules),) in readings(collector, len(collector.metrics))]
    assert told == [float(2 + at) for at in range(len(told))]
    assert nvml.calls["nvmlInit"] == nvml.calls["nvmlShutdown"] == 1
    assert over(handle)


@pytest.mark.parametrize(("value", "is_read"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_the_environment_will_do(collector, machine, monkeypatch, value, is_read):
    nvml = machine("b200")
    monkeypatch.setenv("MILLICENT_ENERGY", value)
    monkeypatch.setenv("MILLICENT_ENDPOINT", collector.url)
    monkeypatch.setenv("MILLICENT_DEPLOYMENT", "of-env")
    handle = instrument()
    handle.shutdown()
    assert bool(nvml.calls["nvmlInit"]) == is_read
    assert {resource["millicent.deployment"] for resource, _ in collector.metrics} == ({"of-env"} if is_read else set())
    assert not instrument(energy=False)._energy


def test_flush_reads_and_sends_now(collector, machine):
    machine("b200")
    before = sdk_stats()
    handle = instrument(collector.url, energy=True)
    collector.exports(1)
    assert handle.flush(20)
    assert len(collector.metrics) == 2
    handle.shutdown()
    assert len(collector.metrics) == 3
    assert sdk_stats()["energy_exported"] - before["energy_exported"] == 6
    assert sdk_stats()["energy_failed"] == before["energy_failed"]


@pytest.mark.parametrize(
    ("name", "variables", "boards"),
    [
        ("h100", {"CUDA_VISIBLE_DEVICES": "1,3"}, 2),
        ("mig", {"CUDA_VISIBLE_DEVICES": "MIG-000000e0,MIG-000000e1"}, 1),  # two devices, one board, one counter
        ("mig", {}, 2),
        ("lost", {}, 1),
        ("l40s", {}, 2),
    ],
)
def test_every_board_that_the_process_may_use_is_read_once(collector, machine, monkeypatch, name, variables, boards):
    machine(name)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    handle = instrument(collector.url, energy=True)
    (told,) = readings(collector, 1)
    handle.shutdown()
    assert len({board for board, _ in told}) == len(told) == boards


@pytest.mark.parametrize("name", ["consumer", "broken"])
def test_without_a_counter_nothing_is_sent_and_the_thread_ends(collector, machine, name):
    machine(name)
    before = sdk_stats()
    handle = instrument(collector.url, energy=True)
    assert over(handle)
    assert handle.flush(0)
    handle.shutdown()
    assert collector.requests == []
    assert sdk_stats() == before


def test_amds_counters_are_read_and_a_die_that_stands_at_zero_is_not(collector, machine):
    boards = (("AMD Instinct MI250X", "0x1", "u1", 7_000_000), ("AMD Instinct MI250X", "0x2", "u2", 0))
    machine(None, *boards)
    handle = instrument(collector.url, energy=True)
    (told,) = readings(collector, 1)
    handle.shutdown()
    assert told == [("u1", 122.4)]  # eight million counts of 15.3 µJ


def test_an_app_that_shuts_amds_library_down_takes_nothing_from_the_readings_nor_they_from_it(collector, machine):
    smi = machine(
        None, ("AMD Instinct MI300X", "0x1", "u1", 7_000_000), ("AMD Instinct MI300X", "0x2", "u2", 9_000_000)
    )
    handle = instrument(collector.url, energy=True)
    collector.exports(1)
    smi.amdsmi_shut_down()
    assert handle.flush(20)
    handle.shutdown()
    assert [[board for board, _ in told] for told in readings(collector, 2)] == [["u1", "u2"]] * 2
    assert smi.calls["amdsmi_shut_down"] == 1  # the app's own


def test_a_board_that_falls_off_its_bus_is_noted_and_the_others_are_read_on(collector, machine):
    nvml = machine("b200")
    handle = instrument(collector.url, energy=True)
    collector.exports(1)
    nvml.devices[0]["errors"] = {"nvmlDeviceGetTotalEnergyConsumption": "NVMLError_GpuIsLost"}
    before = sdk_stats()["internal_errors"]
    assert handle.flush(20)
    del nvml.devices[0]["errors"]
    assert handle.flush(20)
    handle.shutdown()
    assert [len(told) for told in readings(collector, 3)] == [2, 1, 2]
    assert sdk_stats()["internal_errors"] == before + 1


def test_a_second_call_replaces_the_first(collector, machine):
    machine("b200")
    first = instrument(collector.url, energy=True, deployment="first")
    collector.exports(1)
    second = instrument(collector.url, energy=True, deployment="second")
    assert over(first)
    collector.exports(3)
    second.shutdown()
    told = [resource["millicent.deployment"] for resource, _ in collector.metrics]
    assert sorted(told)[:2] == ["first", "first"]
    assert told[-1] == "second"


def test_a_collector_that_hangs_holds_neither_the_app_nor_its_exit(machine):
    machine("b200")
    with socket.create_server(("127.0.0.1", 0)) as hung:  # accepts, and never answers
        began = time.monotonic()
        handle = instrument(f"http://127.0.0.1:{hung.getsockname()[1]}", energy=True)
        assert not handle.flush(0.05)
        handle.shutdown(0.05)
        assert time.monotonic() - began < 5


def test_what_the_collector_refuses_is_counted(collector, machine, caplog):
    machine("b200")
    collector.status = 400
    before = sdk_stats()
    handle = instrument(collector.url, energy=True)
    assert handle.flush(20)
    handle.shutdown()
    assert sdk_stats()["energy_failed"] - before["energy_failed"] >= 2
    assert sdk_stats()["energy_exported"] == before["energy_exported"]
    assert "400" in caplog.text


def test_a_driver_that_never_answers_holds_nobody_up(collector, machine, monkeypatch):
    nvml, awake = machine("b200"), threading.Event()
    monkeypatch.setattr(nvml, "nvmlInit", lambda: awake.wait(20))
    handle = instrument(collector.url, energy=True)
    ask = track_tokens(lambda model: None)
    ask(model="m")
    assert collector.names(1) == ["chat m"]
    assert not handle.flush(0.01)
    handle.shutdown(0.01)
    awake.set()
    assert over(handle)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_after_a_fork_the_parent_alone_reads_on(collector, machine):
    machine("b200")
    handle = instrument(collector.url, energy=True)
    collector.exports(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if handle.flush(0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert handle.flush(20)
    handle.shutdown()


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "/own/m/metrics"}, "/own/m/metrics"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "/own/v1/traces"}, "/own/v1/metrics"),
        ({"MILLICENT_ENDPOINT": "/v1/traces"}, "/v1/metrics"),
    ],
)
def test_the_endpoint_is_that_of_the_calls(collector, machine, monkeypatch, variables, path):
    machine("b200")
    for variable, told in variables.items():
        monkeypatch.setenv(variable, collector.url + told)
    handle = instrument(energy=True)
    collector.exports(1)
    handle.shutdown()
    assert {request.path for request in collector.requests} == {path}


def test_names_of_the_machine_are_read_beside(machine):
    machine("b200")
    assert hardware.detect() == hardware.Hardware("NVIDIA B200", 2)
