"""What `millicent doctor` says of the accelerators of a machine."""

import sys

import pytest

from millicent.dashboard import doctor


@pytest.fixture
def machine(fake_nvml_module, monkeypatch, tmp_path):
    """Makes this one of the machines of tests/fixtures/nvml, or one with AMD's boards, or one with neither."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "version")

    def be(name=None, *amd, **told):
        if name:
            monkeypatch.setitem(sys.modules, "pynvml", fake_nvml_module.FakeNvml(name))
        if amd or told:
            monkeypatch.setitem(sys.modules, "amdsmi", fake_nvml_module.FakeAmdSmi(*amd, **told))
        return sys.modules["pynvml"]

    return be


def said():
    waits = []
    told = doctor.accelerators(1.0, waits.append)
    return told, waits


def test_a_machine_without_accelerators_passes_in_one_line_and_at_once(machine):
    machine()
    assert said() == ({"accelerators": "none on this machine; nothing to check"}, [])


def test_a_driver_without_the_package_that_asks_it_is_named(machine):
    machine()
    doctor.DRIVER.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06")
    told, _ = said()
    assert told == {"accelerators": "NVIDIA's driver is here and nvidia-ml-py is not: pip install 'millicent[nvidia]'"}


def test_every_board_is_named_matched_and_its_counter_read_twice(machine):
    nvml = machine("h100")
    told, waits = said()
    assert list(told) == [f"accelerator {at}" for at in range(8)]
    assert told["accelerator 0"].startswith(
        "NVIDIA H100 80GB HBM3, nvidia-h100-sxm in the catalog; its energy counter rises (71.2 J in "
    )
    assert told["accelerator 0"].endswith("; MIG is off")
    assert waits == [1.0]
    assert nvml.calls["nvmlInit"] == nvml.calls["nvmlShutdown"] == 1


def test_boards_without_mig_say_nothing_of_it(machine):
    machine("l40s")
    told, _ = said()
    assert [line.split(" in the catalog")[0] for line in told.values()] == [
        "NVIDIA L40S, nvidia-l40s",
        "NVIDIA L4, nvidia-l4",
    ]
    assert not any("MIG" in line for line in told.values())


def test_mig_is_told_with_its_devices_and_what_the_next_reset_brings(machine):
    machine("mig")
    told, _ = said()
    assert told["accelerator 0"].endswith("MIG is on with 3 devices, which share the board's one energy counter")
    assert told["accelerator 1"].endswith("MIG is off, and on after the next reset")


@pytest.mark.parametrize(
    ("name", "board", "why"),
    [
        ("consumer", 0, "no energy counter to read (Not Supported): its energy is modelled"),
        ("lost", 1, "no energy counter to read (GPU is lost): its energy is modelled"),
    ],
)
def test_a_board_without_a_counter_says_why(machine, name, board, why):
    machine(name)
    told, _ = said()
    assert why in told[f"accelerator {board}"]


@pytest.mark.parametrize(("energy", "step", "state"), [(500, 0, "stands still"), (0, 0, "stands at 0")])
def test_a_counter_that_does_not_rise_cannot_be_used(machine, energy, step, state):
    machine({"devices": [{"name": "NVIDIA B200", "uuid": "GPU-1", "energy_mj": energy, "step_mj": step,
                          "mig_mode": None}]})  # fmt: skip
    told, _ = said()
    assert f"its energy counter {state}, so it cannot be used" in told["accelerator 0"]


def test_an_accelerator_that_the_catalog_lacks_is_named_all_the_same(machine):
    machine({"devices": [{"name": "NVIDIA Titan Y", "uuid": "GPU-1", "energy_mj": 5, "step_mj": 5, "mig_mode": None}]})
    told, _ = said()
    assert told["accelerator 0"].startswith("NVIDIA Titan Y, not in the catalog")


def test_a_library_without_its_driver_is_said_and_passes(machine):
    machine("broken")
    told, waits = said()
    assert told == {
        "accelerators": "nvidia-ml-py is here and no driver answers (Driver Not Loaded): no NVIDIA accelerator to check"
    }
    assert waits == []


def test_a_driver_that_lists_no_boards_is_said_beside_the_others(machine):
    broken = {"devices": [{"name": "x", "errors": {"nvmlDeviceGetName": "NVMLError_GpuIsLost"}}]}
    machine(broken, ("AMD Instinct MI300X", "0x1", "u1", 7_000_000))
    told, _ = said()
    assert told["accelerators"] == "NVIDIA's driver does not tell its boards (GPU is lost): see nvidia-smi"
    assert told["accelerator 0"].startswith("AMD Instinct MI300X, amd-mi300x in the catalog; its energy counter rises")


@pytest.mark.parametrize("key", ["energy_accumulator", "power"])
def test_amds_counter_is_read_by_either_of_its_names(machine, key):
    machine(None, ("AMD Instinct MI355X", "0x1", "u1", 7_000_000), ("AMD Instinct MI355X", "0x2", "u2", None), key=key)
    told, _ = said()
    assert "its energy counter rises (15.3 J in" in told["accelerator 0"]
    assert "no energy counter to read (AMDSMI_STATUS_NOT_SUPPORTED)" in told["accelerator 1"]


def test_amds_library_without_its_driver_is_said(machine):
    machine(None, error=RuntimeError("AMDSMI_STATUS_DRIVER_NOT_LOADED"))
    told, _ = said()
    assert "amdsmi is here and no driver answers (AMDSMI_STATUS_DRIVER_NOT_LOADED)" in told["accelerators"]
