"""Local accelerators: what the vendors' libraries tell of machines, and what may be slow or broken about it."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from millicent.pricing import catalog
from millicent.sdk import hardware, instrument, sdk_stats, track_tokens
from millicent.sdk.hardware import Hardware

H100 = "NVIDIA H100 80GB HBM3"
VARIABLES = (
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("TPU_ACCELERATOR_TYPE", "TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"),
)


@pytest.fixture
def machine(fake_nvml_module, monkeypatch, tmp_path):
    """Makes this one of the machines of tests/fixtures/nvml, or one with AMD's boards, or one with neither."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hardware, "_detections", [])
    monkeypatch.setattr(hardware, "_PRODUCT", tmp_path / "product_name")
    monkeypatch.setattr(hardware, "_DEVICES", tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", None)

    def be(name=None, *amd, **told):
        if name:
            monkeypatch.setitem(sys.modules, "pynvml", fake_nvml_module.FakeNvml(name, **told))
        elif amd:
            monkeypatch.setitem(sys.modules, "amdsmi", fake_nvml_module.FakeAmdSmi(*amd, **told))
        return sys.modules["pynvml"] or sys.modules["amdsmi"]

    return be


def mi(name, number, energy=7_000_000):
    return name, f"0x{number:X}", f"ffff{number:04x}-0000-1000-8000-000000000000", energy


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    ("name", "found", "in_the_catalog"),
    [
        ("h100", Hardware(H100, 8), "nvidia-h100-sxm"),
        ("b200", Hardware("NVIDIA B200", 2), "nvidia-b200"),
        ("l40s", Hardware("NVIDIA L40S", 1), "nvidia-l40s"),
        ("mig", Hardware(H100, 2), "nvidia-h100-sxm"),
        ("consumer", Hardware("NVIDIA GeForce RTX 4090", 1), "nvidia-rtx-4090"),
        ("lost", Hardware(H100, 2), "nvidia-h100-sxm"),
        ("broken", None, None),
        (None, None, None),
    ],
)
def test_nvidias_accelerators_are_found_by_the_name_that_the_catalog_matches(
    machine, name, found, in_the_catalog, as_bytes
):
    nvml = machine(name, as_bytes=as_bytes)
    assert hardware.detect() == found
    assert found is None or catalog.accelerator(found.name).id == in_the_catalog
    assert nvml is None or nvml.calls["nvmlShutdown"] == (name != "broken")


@pytest.mark.parametrize(
    ("name", "told", "count"),
    [
        ("h100", {"CUDA_VISIBLE_DEVICES": "2,1"}, 2),
        ("h100", {"CUDA_VISIBLE_DEVICES": "0,2,-1,1"}, 2),
        ("h100", {"CUDA_VISIBLE_DEVICES": "0,99,1"}, 1),
        ("h100", {"CUDA_VISIBLE_DEVICES": " 3 , 3"}, 1),
        ("h100", {"CUDA_VISIBLE_DEVICES": ""}, None),
        ("h100", {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, None),
        ("h100", {"CUDA_VISIBLE_DEVICES": "GPU-000000a1,GPU-000000a2-5f0e"}, 2),
        ("h100", {"CUDA_VISIBLE_DEVICES": "GPU-000000a"}, None),  # begins the names of all eight
        ("mig", {"CUDA_VISIBLE_DEVICES": "MIG-000000e1-5f0e-4c61-9d2a-0000001b300f"}, 1),
        ("mig", {"CUDA_VISIBLE_DEVICES": "MIG-000000e0,MIG-000000e2"}, 1),
        ("mig", {"CUDA_VISIBLE_DEVICES": "MIG-GPU-000000d1-5f0e-4c61-9d2a-00000019411f/1/0,1"}, 2),
        ("h100", {"NVIDIA_VISIBLE_DEVICES": "1,2,3"}, 3),
        ("h100", {"NVIDIA_VISIBLE_DEVICES": "GPU-000000a1"}, 1),
        ("h100", {"NVIDIA_VISIBLE_DEVICES": "1,2,3", "CUDA_VISIBLE_DEVICES": "0"}, 1),
        ("h100", {"NVIDIA_VISIBLE_DEVICES": "1,2", "CUDA_VISIBLE_DEVICES": "2"}, None),
        ("b200", {"NVIDIA_VISIBLE_DEVICES": "6,7"}, 2),  # the host's numbers: both are what the container was given
        ("mig", {"NVIDIA_VISIBLE_DEVICES": "0:1"}, 1),
        ("h100", {"NVIDIA_VISIBLE_DEVICES": "all"}, 8),
        ("h100", {"NVIDIA_VISIBLE_DEVICES": "void"}, 8),
        ("h100", {"HIP_VISIBLE_DEVICES": "0"}, 8),
    ],
)
def test_what_the_process_may_use_narrows_the_count(machine, monkeypatch, name, told, count):
    machine(name)
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    found = hardware.detect()
    assert (found and found.count) == count


EIGHT = [mi("AMD Instinct MI325X", number) for number in range(1, 9)]


@pytest.mark.parametrize(
    ("boards", "told", "found"),
    [
        ([mi("AMD Instinct MI300X OAM", n) for n in range(1, 9)], {}, Hardware("AMD Instinct MI300X OAM", 8)),
        ([("AMD Instinct MI300X", "N/A", f"u{n}", 1) for n in range(4)], {}, Hardware("AMD Instinct MI300X", 4)),
        ([mi("AMD Instinct MI355X", n) for n in (1, 1, 1, 2)], {}, Hardware("AMD Instinct MI355X", 2)),
        ([mi("AMD Instinct MI250X", n) for n in range(1, 9)], {}, Hardware("AMD Instinct MI250X", 4)),
        ([mi("AMD Instinct MI250X", n) for n in range(1, 4)], {}, Hardware("AMD Instinct MI250X", 2)),
        (EIGHT, {"ROCR_VISIBLE_DEVICES": "4,5,6,7"}, 4),
        (EIGHT, {"ROCR_VISIBLE_DEVICES": "GPU-3"}, 1),
        (EIGHT, {"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": ""}, 1),
        (EIGHT, {"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        (EIGHT, {"ROCR_VISIBLE_DEVICES": "4,5", "HIP_VISIBLE_DEVICES": "1"}, 1),
    ],
)  # fmt: skip
def test_amds_accelerators_are_boards_whatever_they_show_up_as(machine, monkeypatch, boards, told, found):
    smi = machine(None, *boards)
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    expected = found if isinstance(found, Hardware) else Hardware("AMD Instinct MI325X", found)
    assert hardware.detect() == expected
    assert catalog.accelerator(expected.name).vendor == "AMD"
    assert smi.calls == {"amdsmi_init": 1}


@pytest.mark.parametrize(
    ("told", "found", "in_the_catalog"),
    [
        ({"TPU_ACCELERATOR_TYPE": "v5litepod-8"}, Hardware("TPU v5e", 8), "google-tpu-v5e"),
        ({"TPU_ACCELERATOR_TYPE": "v6e-4"}, Hardware("TPU v6e", 4), "google-tpu-v6e"),
        ({"TPU_ACCELERATOR_TYPE": "v4-16"}, Hardware("TPU v4", 8), "google-tpu-v4"),
        ({"TPU_ACCELERATOR_TYPE": "v5p-8"}, Hardware("TPU v5p", 4), "google-tpu-v5p"),
        ({"TPU_ACCELERATOR_TYPE": "tpu7x-8"}, Hardware("TPU v7x", 4), "google-tpu-v7"),
        ({"TPU_ACCELERATOR_TYPE": "v6e-8", "TPU_VISIBLE_CHIPS": "0,1"}, Hardware("TPU v6e", 2), "google-tpu-v6e"),
        ({"TPU_ACCELERATOR_TYPE": "what is this"}, None, None),
        ({"TPU_ACCELERATOR_TYPE": ""}, None, None),
    ],
)
def test_googles_accelerators_tell_themselves_by_the_environment(machine, monkeypatch, told, found, in_the_catalog):
    machine()
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    assert hardware.detect() == found
    assert found is None or catalog.accelerator(found.name).id == in_the_catalog


class Metadata(BaseHTTPRequestHandler):
    asked = None

    def do_GET(self):
        self.asked.append((self.path, self.headers["Metadata-Flavor"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"v6e-8")

    def log_message(self, *_):
        """Stay quiet."""


@pytest.mark.parametrize(
    ("product", "device", "found"),
    [
        ("Google Compute Engine\n", "accel0", Hardware("TPU v6e", 8)),
        ("Google Compute Engine\n", "null", None),
        ("PowerEdge R760\n", "accel0", None),
    ],
)
def test_the_metadata_server_is_asked_only_on_a_machine_of_googles_with_a_tpu(
    machine, monkeypatch, tmp_path, product, device, found
):
    machine()
    (tmp_path / "product_name").write_text(product)
    (tmp_path / device).touch()
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(hardware, "METADATA_HOST", f"127.0.0.1:{server.server_port}")
        monkeypatch.setattr(Metadata, "asked", [])
        assert hardware.detect() == found
        server.shutdown()
    path = "/computeMetadata/v1/instance/attributes/accelerator-type"
    assert Metadata.asked == ([(path, "Google")] if found else [])


def test_a_driver_that_breaks_off_is_noted_and_another_vendor_still_asked(machine, fake_nvml_module, monkeypatch):
    machine({"devices": [{"errors": {"nvmlDeviceGetName": "NVMLError_GpuIsLost"}}]})
    monkeypatch.setitem(sys.modules, "amdsmi", fake_nvml_module.FakeAmdSmi(mi("AMD Instinct MI300X", 1)))
    before = sdk_stats()["internal_errors"]
    assert hardware.detect() == Hardware("AMD Instinct MI300X", 1)
    assert sdk_stats()["internal_errors"] == before + 1


# ---- tags of the calls


@track_tokens
def ask(model):
    return {"input_tokens": 1, "model": model}


def tags(resource):
    return resource.get("millicent.accelerator"), resource.get("millicent.accelerator_count")


@pytest.mark.usefixtures("no_app_provider")
def test_detected_hardware_tags_the_calls_unless_stated_and_is_asked_for_once(collector, machine):
    nvml = machine("h100")
    for arguments in ({}, {"accelerator": "H200", "accelerator_count": 2}, {}):
        handle = instrument(collector.url, detect_hardware=True, **arguments)
        ask("m")
        handle.shutdown()
    assert [tags(told) for told in collector.resources] == [(H100, 8), ("H200", 2), (H100, 8)]
    assert nvml.calls["nvmlInit"] == 1


@pytest.mark.usefixtures("no_app_provider")
def test_a_driver_that_is_slow_to_answer_holds_nobody_up_and_tags_what_comes_after(collector, machine, monkeypatch):
    nvml, awake = machine("h100"), threading.Event()
    monkeypatch.setattr("millicent.sdk.export.DETECT_S", 0.01)
    init = nvml.nvmlInit
    monkeypatch.setattr(nvml, "nvmlInit", lambda: (awake.wait(20), init()))
    handle = instrument(collector.url, detect_hardware=True, team="search")
    ask("before")
    assert handle.flush(20)
    told = threading.Event()
    hardware.detection().later(lambda _: told.set())
    awake.set()
    assert told.wait(20)
    ask("after")
    handle.shutdown()
    assert collector.names(2) == ["chat after", "chat before"]
    assert [tags(resource) for resource in collector.resources] == [(None, None), (H100, 8)]
    assert {resource["millicent.team"] for resource in collector.resources} == {"search"}


@pytest.mark.usefixtures("no_app_provider")
def test_what_is_found_just_after_the_wait_is_not_lost(collector, machine, monkeypatch):
    machine("h100")
    monkeypatch.setattr(hardware.Detection, "within", lambda self, _: self._done.wait(20) and None)
    handle = instrument(collector.url, detect_hardware=True)
    ask("m")
    handle.shutdown()
    assert [tags(resource) for resource in collector.resources] == [(H100, 8)]


@pytest.mark.usefixtures("no_app_provider")
def test_what_is_found_after_the_end_changes_nothing(collector, machine, monkeypatch):
    nvml, awake = machine("h100"), threading.Event()
    monkeypatch.setattr("millicent.sdk.export.DETECT_S", 0.01)
    init = nvml.nvmlInit
    monkeypatch.setattr(nvml, "nvmlInit", lambda: (awake.wait(20), init()))
    instrument(collector.url, detect_hardware=True).shutdown()
    second = instrument(collector.url, accelerator="stated")
    told = threading.Event()
    hardware.detection().later(lambda _: told.set())
    awake.set()
    assert told.wait(20)
    ask("m")
    second.shutdown()
    assert [tags(resource) for resource in collector.resources] == [("stated", None)]
