"""What accelerators this machine has, and whether their energy can be read: a part of `millicent doctor`.

Asks the vendors' own libraries, where they are installed: NVIDIA's NVML (`nvidia-ml-py`, the extra `millicent[nvidia]`)
and AMD SMI (`amdsmi`, which comes with ROCm). Nothing is changed on a device, and nothing here raises.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from millicent.pricing import catalog

WAIT_S: Final = 1.0
DRIVER: Final = Path("/proc/driver/nvidia/version")
NONE: Final = "none on this machine; nothing to check"


@dataclass(frozen=True, slots=True)
class _Device:
    """One accelerator: what it is called, how its counter of millijoules is read, and what is said of its MIG mode."""

    name: str
    millijoules: Callable[[], int]
    mig: str | None = None


def accelerators(wait_s: float = WAIT_S, wait: Callable[[float], None] = time.sleep) -> dict[str, str]:
    """What to say of each accelerator, or in one line that there is none. Where there are any, it takes `wait_s`.

    Returns:
        `accelerator 0` and so on, or `accelerators`, and a line of text for each.
    """
    found: list[_Device] = []
    odd: list[str] = []
    with _nvidia() as nvidia, _amd() as amd:
        for told in (nvidia, amd):
            if isinstance(told, str):
                odd.append(told)
            else:
                found += told
        if not found:
            return {"accelerators": "; ".join(odd) or NONE}
        began = [(_read(one), time.monotonic()) for one in found]
        wait(wait_s)
        energy = [
            _rise(first, _read(one), time.monotonic() - at) for one, (first, at) in zip(found, began, strict=True)
        ]
    said = {
        f"accelerator {at}": "; ".join(part for part in (_named(one.name), told, one.mig) if part)
        for at, (one, told) in enumerate(zip(found, energy, strict=True))
    }
    return said | ({"accelerators": "; ".join(odd)} if odd else {})


def _named(name: str) -> str:
    try:
        return f"{name}, {catalog.accelerator(name).id} in the catalog"
    except LookupError:
        return f"{name}, not in the catalog (an extension can add it: the setting `catalog`)"


def _read(device: _Device) -> int | str:
    """The counter, or why it cannot be read."""
    try:
        return device.millijoules()
    except Exception as error:  # noqa: BLE001 - a vendor's library raises kinds of its own
        return _words(error)


def _rise(first: int | str, then: int | str, seconds: float) -> str:
    for told in (first, then):
        if isinstance(told, str):
            return f"no energy counter to read ({told}): its energy is modelled"
    joules = (int(then) - int(first)) / 1000
    if joules > 0:
        return f"its energy counter rises ({joules:.1f} J in {seconds:.1f} s)"
    state = "stands at 0" if not then else "stands still" if joules == 0 else "fell"
    return f"its energy counter {state}, so it cannot be used: its energy is modelled"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


@contextmanager
def _nvidia() -> Iterator[list[_Device] | str]:
    """NVIDIA's boards while the library is open, or what is wrong with it."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        missing = "NVIDIA's driver is here and nvidia-ml-py is not: pip install 'millicent[nvidia]'"
        yield missing if DRIVER.exists() else []
        return
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - NVML's own kinds; without a driver there is nothing to check
        yield f"nvidia-ml-py is here and no driver answers ({_words(error)}): no NVIDIA accelerator to check"
        return
    try:
        told: list[_Device] | str
        try:
            told = [_board(nvml, nvml.nvmlDeviceGetHandleByIndex(at)) for at in range(nvml.nvmlDeviceGetCount())]
        except Exception as error:  # noqa: BLE001 - NVML's own kinds
            told = f"NVIDIA's driver does not tell its boards ({_words(error)}): see nvidia-smi"
        yield told
    finally:
        nvml.nvmlShutdown()


def _board(nvml: Any, handle: Any) -> _Device:
    name = nvml.nvmlDeviceGetName(handle)
    return _Device(
        name.decode() if isinstance(name, bytes) else str(name),
        lambda: int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)),
        _mig(nvml, handle),
    )


def _mig(nvml: Any, handle: Any) -> str | None:
    """What is said of a board's MIG mode; None where the board has none."""
    try:
        now, pending = nvml.nvmlDeviceGetMigMode(handle)
    except Exception:  # noqa: BLE001 - Not Supported, by boards without MIG
        return None
    if now != pending:
        return f"MIG is {'on' if now else 'off'}, and {'on' if pending else 'off'} after the next reset"
    if not now:
        return "MIG is off"
    count = 0
    for at in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with suppress(Exception):  # Not Found: no such device
            nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, at)
            count += 1
    return f"MIG is on with {count} devices, which share the board's one energy counter"


@contextmanager
def _amd() -> Iterator[list[_Device] | str]:
    """AMD's boards while the library is open, or what is wrong with it."""
    try:
        smi: Any = importlib.import_module("amdsmi")
        smi.amdsmi_init()
    except ImportError:
        yield []
        return
    except Exception as error:  # noqa: BLE001 - a library of its own kinds; it also fails on import without its driver
        yield f"amdsmi is here and no driver answers ({_words(error)}): no AMD accelerator to check"
        return
    try:
        told: list[_Device] | str
        try:
            told = [_amd_board(smi, handle) for handle in smi.amdsmi_get_processor_handles()]
        except Exception as error:  # noqa: BLE001 - as above
            told = f"AMD's driver does not tell its boards ({_words(error)}): see amd-smi"
        yield told
    finally:
        smi.amdsmi_shut_down()


def _amd_board(smi: Any, handle: Any) -> _Device:
    def millijoules() -> int:
        told = smi.amdsmi_get_energy_count(handle)
        count = told.get("energy_accumulator", told.get("power"))  # the name before ROCm 6.2
        return int(count * told["counter_resolution"] / 1000)  # counted in units of some microjoules

    return _Device(str(smi.amdsmi_get_gpu_asic_info(handle)["market_name"]), millijoules)
