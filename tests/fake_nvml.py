"""NVIDIA's management library as its Python binding `pynvml` shows it, on a machine of `tests/fixtures/nvml`.

    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml_module.FakeNvml("h100"))

The energy counter of a device rises by its `step_mj` at every look. `calls` counts what was called.
"""

# ruff: noqa: N802
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

FIXTURES = Path(__file__).parent / "fixtures" / "nvml"
_ERRORS = {  # name: (code, what NVML says of it)
    "NVMLError_InvalidArgument": (2, "Invalid Argument"),
    "NVMLError_NotSupported": (3, "Not Supported"),
    "NVMLError_NotFound": (6, "Not Found"),
    "NVMLError_Uninitialized": (1, "Uninitialized"),
    "NVMLError_DriverNotLoaded": (9, "Driver Not Loaded"),
    "NVMLError_GpuIsLost": (15, "GPU is lost"),
}


class NVMLError(Exception):
    """As NVML's own: a code, and its words."""

    def __init__(self, value: int, words: str) -> None:
        super().__init__(value)
        self.value, self._words = value, words

    def __str__(self) -> str:
        return self._words


class FakeNvml(ModuleType):
    """One machine. Handles are the fixture's devices, or the MIG devices in them."""

    NVMLError = NVMLError

    def __init__(self, machine: str | dict, *, as_bytes: bool = False) -> None:
        super().__init__("pynvml")
        told = json.loads((FIXTURES / f"{machine}.json").read_text()) if isinstance(machine, str) else machine
        self.devices = told.get("devices", [])
        self.calls: Counter[str] = Counter()
        self._init_error, self._as_bytes, self._open = told.get("init_error"), as_bytes, 0

    def _asked(self, what: str, device: dict | None = None) -> None:
        self.calls[what] += 1
        if not self._open:
            raise self.error("NVMLError_Uninitialized")
        if device is not None and what in device.get("errors", {}):
            raise self.error(device["errors"][what])

    @staticmethod
    def error(name: str) -> NVMLError:
        return NVMLError(*_ERRORS[name])

    def nvmlInit(self) -> None:
        self.calls["nvmlInit"] += 1
        if self._init_error:
            raise self.error(self._init_error)
        self._open += 1

    def nvmlShutdown(self) -> None:
        self._asked("nvmlShutdown")
        self._open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._asked("nvmlSystemGetDriverVersion")
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        self._asked("nvmlDeviceGetCount")
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict:
        self._asked("nvmlDeviceGetHandleByIndex")
        if index >= len(self.devices):
            raise self.error("NVMLError_InvalidArgument")
        return self.devices[index]

    def nvmlDeviceGetName(self, device: dict) -> str | bytes:
        self._asked("nvmlDeviceGetName", device)
        return device["name"].encode() if self._as_bytes else device["name"]

    def nvmlDeviceGetUUID(self, device: dict) -> str | bytes:
        self._asked("nvmlDeviceGetUUID", device)
        return device["uuid"].encode() if self._as_bytes else device["uuid"]

    def nvmlDeviceGetMigMode(self, device: dict) -> list[int]:
        self._asked("nvmlDeviceGetMigMode", device)
        if device["mig_mode"] is None:
            raise self.error("NVMLError_NotSupported")
        return list(device["mig_mode"])

    def nvmlDeviceGetMaxMigDeviceCount(self, device: dict) -> int:
        self._asked("nvmlDeviceGetMaxMigDeviceCount", device)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: dict, index: int) -> dict:
        self._asked("nvmlDeviceGetMigDeviceHandleByIndex", device)
        inside = device.get("mig", [])
        if index >= len(inside):
            raise self.error("NVMLError_NotFound")
        return inside[index]

    def nvmlDeviceGetTotalEnergyConsumption(self, device: dict) -> int:
        self._asked("nvmlDeviceGetTotalEnergyConsumption", device)
        if device.get("energy_mj") is None:  # a MIG device has none of its own, either
            raise self.error("NVMLError_NotSupported")
        shown: int = device["energy_mj"]
        device["energy_mj"] += device["step_mj"]
        return shown


class FakeAmdSmi(ModuleType):
    """AMD's management library: `boards` are (market name, serial, uuid, accumulator or None), 15.3 µJ a count.

    As the real one, it does not count its users: whoever shuts it down does so for all, and handles end with it.
    """

    def __init__(self, *boards: tuple, error: Exception | None = None, key: str = "energy_accumulator") -> None:
        super().__init__("amdsmi")
        self.boards, self.calls = [list(one) for one in boards], Counter()
        self._error, self._key, self._life, self._open = error, key, 0, False

    def amdsmi_init(self) -> None:
        self.calls["amdsmi_init"] += 1
        if self._error:
            raise self._error
        self._open = True

    def amdsmi_shut_down(self) -> None:
        self.calls["amdsmi_shut_down"] += 1
        self._open, self._life = False, self._life + 1

    def amdsmi_get_processor_handles(self) -> list:
        if not self._open:
            raise RuntimeError("AMDSMI_STATUS_NOT_INIT")
        return [(self._life, at) for at in range(len(self.boards))]

    def _board(self, handle: tuple[int, int]) -> list:
        if not self._open or handle[0] != self._life:
            raise RuntimeError("AMDSMI_STATUS_INVAL")
        return self.boards[handle[1]]

    def amdsmi_get_gpu_asic_info(self, handle: tuple[int, int]) -> dict:
        board = self._board(handle)
        return {"market_name": board[0], "asic_serial": board[1], "vendor_id": "0x1002"}

    def amdsmi_get_gpu_device_uuid(self, handle: tuple[int, int]) -> str:
        uuid: str = self._board(handle)[2]
        return uuid

    def amdsmi_get_energy_count(self, handle: tuple[int, int]) -> dict:
        board = self._board(handle)
        if board[3] is None:
            raise RuntimeError("AMDSMI_STATUS_NOT_SUPPORTED")
        shown, board[3] = board[3], board[3] + 1_000_000 * bool(board[3])
        return {self._key: shown, "counter_resolution": 15.3, "timestamp": 0}
