import importlib
from dataclasses import dataclass
from typing import Any

from millicent.sdk import faults


@dataclass(frozen=True, slots=True)
class Hardware:
    """The accelerators of this machine: the name of the first one, and how many carry that name."""

    name: str
    count: int


def detect() -> Hardware | None:
    """Ask NVIDIA's management library for the local accelerators (needs the extra `millicent-sdk[nvidia]`).

    Returns:
        None where there is no library, no driver or no accelerator. Never raises.
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001  # the library without a driver: no accelerator here
        return None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        names = [_text(nvml.nvmlDeviceGetName(handle)) for handle in handles]
        return Hardware(names[0], names.count(names[0])) if names else None
    except Exception as error:  # noqa: BLE001  # a broken driver is no reason to stop the app
        faults.note(error)
        return None
    finally:
        nvml.nvmlShutdown()


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
