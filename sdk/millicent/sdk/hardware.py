"""The accelerators of this machine: what they are called, which of them this process may use, and how many.

The vendors' own libraries are asked, where they are installed: NVIDIA's NVML (the extra `millicent-sdk[nvidia]`) and
AMD SMI (`amdsmi`, which comes with ROCm); Google's TPUs tell themselves by the environment, or on Google's machines by
the metadata server. None of it may stop the app, or hold it up.
"""

import importlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from millicent.sdk import faults

METADATA_HOST: Final = "169.254.169.254"
METADATA_S: Final = 0.5  # a metadata server answers in a few milliseconds


@dataclass(frozen=True, slots=True)
class Hardware:
    """The accelerators that this process may use: the name of the first one, and how many carry that name.

    Of a board that is cut into MIG devices, or of an AMD board in partitions, the board counts, once.
    """

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Board:
    """One accelerator board. `ids` are all by which it may be asked for: its own (the first), and of MIG devices."""

    name: str
    ids: tuple[str, ...]
    handle: Any

    @property
    def id(self) -> str:
        """Unique in the world."""
        return self.ids[0]


class Library(Protocol):
    """A vendor's management library, open."""

    vendor: str

    def boards(self) -> list[Board]:
        """The boards that this process may use, in their order."""

    def millijoules(self, board: Board) -> int:
        """What the board's energy counter shows. Raises where it has none."""

    def close(self) -> None:
        """Let go of the driver."""


class Nvidia:
    """NVML, through `nvidia-ml-py`."""

    vendor = "NVIDIA"

    def __init__(self) -> None:
        self._nvml: Any = importlib.import_module("pynvml")
        self._nvml.nvmlInit()

    def boards(self) -> list[Board]:
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(self._nvml.nvmlDeviceGetCount())]
        every = [
            Board(_text(self._nvml.nvmlDeviceGetName(one)), (self._uuid(one), *self._mig(one)), one) for one in handles
        ]
        # In a container the driver shows what the runtime gave, and these are the host's numbers: only a list that can
        # be meant of what is shown narrows it.
        given = [entry.partition(":")[0] for entry in os.environ.get("NVIDIA_VISIBLE_DEVICES", "").split(",")]
        named = [_asked(every, entry) for entry in given]
        boards = every if None in named else [one for one in every if one in named]
        return _visible(boards, "CUDA_VISIBLE_DEVICES")

    def millijoules(self, board: Board) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(board.handle))

    def close(self) -> None:
        self._nvml.nvmlShutdown()

    def _uuid(self, handle: Any) -> str:
        return _text(self._nvml.nvmlDeviceGetUUID(handle))

    def _mig(self, handle: Any) -> Iterator[str]:
        """UUIDs of the MIG devices of a board."""
        with suppress(Exception):  # Not Supported, by boards without MIG
            if self._nvml.nvmlDeviceGetMigMode(handle)[0]:
                for index in range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
                    with suppress(Exception):  # Not Found: there are fewer
                        yield self._uuid(self._nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))


class Amd:
    """AMD SMI, through `amdsmi`.

    It does not count its users: a shut-down ends it for all, here and in the app. So we never shut it down, begin it
    anew before each reading (which does nothing while it runs), and keep no handle.
    """

    vendor = "AMD"

    def __init__(self) -> None:
        self._smi: Any = importlib.import_module("amdsmi")
        self._smi.amdsmi_init()

    def boards(self) -> list[Board]:
        every: dict[str, Board] = {}
        for handle, uuid in self._handles():
            told = self._smi.amdsmi_get_gpu_asic_info(handle)
            serial = str(told.get("asic_serial") or "").lower().removeprefix("0x")
            serial = serial if serial != "n/a" else ""
            # Partitions of one board share its serial; the first of them has the board's energy counter.
            every.setdefault(serial or uuid, Board(_text(told["market_name"]), (uuid, f"GPU-{serial}"), None))
        boards = _visible(list(every.values()), "ROCR_VISIBLE_DEVICES")
        return _visible(
            boards, "HIP_VISIBLE_DEVICES" if "HIP_VISIBLE_DEVICES" in os.environ else "CUDA_VISIBLE_DEVICES"
        )

    def millijoules(self, board: Board) -> int:
        self._smi.amdsmi_init()
        handle = next(handle for handle, uuid in self._handles() if uuid == board.id)
        told = self._smi.amdsmi_get_energy_count(handle)
        count = told.get("energy_accumulator", told.get("power"))  # the name before ROCm 6.2
        return int(count * told["counter_resolution"] / 1000)  # counted in units of some microjoules

    def close(self) -> None:
        """Leave it to the app."""

    def _handles(self) -> Iterator[tuple[Any, str]]:
        for handle in self._smi.amdsmi_get_processor_handles():
            yield handle, _text(self._smi.amdsmi_get_gpu_device_uuid(handle))


@contextmanager
def libraries() -> Iterator[list[Library]]:
    """The libraries that are installed and whose driver answers, open."""
    opened: list[Library] = []
    try:
        for kind in (Nvidia, Amd):
            with suppress(Exception):  # not installed, or without its driver: no accelerator here
                opened.append(kind())
        yield opened
    finally:
        for library in opened:
            with suppress(Exception):  # it has told what it could
                library.close()


def detect() -> Hardware | None:
    """Ask for the local accelerators.

    Returns:
        None where there is no library, no driver or no accelerator. Never raises.
    """
    try:
        with libraries() as opened:
            for library in opened:
                with faults.noted():  # a broken driver is no reason to stop the app
                    if names := [board.name for board in library.boards()]:
                        return Hardware(names[0], -(-names.count(names[0]) // _dies(names[0])))
        return _tpu(os.environ) or _tpu_of_metadata(os.environ)
    except Exception as error:  # noqa: BLE001  # as promised
        faults.note(error)
        return None


class Detection:
    """`detect`, once, in a thread of its own: a driver that was asleep takes seconds to answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: list[Callable[[Hardware], None]] = []
        self._done = threading.Event()
        self._found: Hardware | None = None
        threading.Thread(name="millicent-hardware", target=self._run, daemon=True).start()

    def within(self, seconds: float) -> Hardware | None:
        """What was found, after waiting for so long at most; None where that is nothing, or not known yet."""
        self._done.wait(seconds)
        return self._found

    def later(self, tell: Callable[[Hardware], None]) -> None:
        """Tell what is found as soon as it is, in that thread, or at once. Nothing is told where nothing is found."""
        with self._lock:
            if not self._done.is_set():
                self._told.append(tell)
                return
        if self._found is not None:
            with faults.noted():
                tell(self._found)

    def _run(self) -> None:
        found = detect()
        with self._lock:
            self._found = found
            self._done.set()
            told, self._told = self._told, []
        if found is not None:
            for tell in told:
                with faults.noted():
                    tell(found)


_detections: list[Detection] = []
_lock = threading.Lock()


def detection() -> Detection:
    """The one of this process; begins at the first call."""
    with _lock:
        if not _detections:
            _detections.append(Detection())
        return _detections[0]


# ---- which of the boards


def _visible(boards: Sequence[Board], variable: str) -> list[Board]:
    """The boards that an environment variable of the vendor leaves; as there, what cannot be meant ends the list."""
    told = os.environ.get(variable)
    if told is None:
        return list(boards)
    chosen: list[Board] = []
    for entry in told.split(","):
        board = _asked(boards, entry)
        if board is None:
            break
        if board not in chosen:
            chosen.append(board)
    return chosen


def _asked(boards: Sequence[Board], entry: str) -> Board | None:
    """The board that a number or the beginning of a UUID means, also of a MIG device on it."""
    entry = entry.strip()
    if entry.isdecimal():
        return boards[int(entry)] if int(entry) < len(boards) else None
    entry = entry.removeprefix("MIG-").partition("/")[0] if entry.startswith("MIG-GPU-") else entry  # an older form
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    found = [board for board in boards if any(one.startswith(entry) for one in board.ids)]
    return found[0] if len(found) == 1 else None


def _dies(name: str) -> int:
    """How many devices a board shows up as."""
    return 2 if re.search(r"\bMI250X?\b", name) else 1


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


# ---- TPUs

_TPU_NAMES: Final = {"v5litepod": "v5e", "tpu7x": "v7x"}
_CORES: Final = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "tpu7x": 2}  # the type counts these; of the others, chips
_TPU_TYPE: Final = re.compile(r"^([a-z0-9]+)-(\d{1,6})$")
_PRODUCT: Final = Path("/sys/class/dmi/id/product_name")  # says "Google Compute Engine" on its machines
_DEVICES: Final = Path("/dev")


def _tpu(environment: Mapping[str, str]) -> Hardware | None:
    """The chips of the slice that this machine is of, as Google's runtimes name it: v5litepod-8, v4-16, tpu7x-8."""
    told = _TPU_TYPE.match(environment.get("TPU_ACCELERATOR_TYPE", "").strip().lower())
    if told is None:
        return None
    kind, count = told[1], max(1, int(told[2]) // _CORES.get(told[1], 1))
    chips = environment.get("TPU_VISIBLE_CHIPS") or environment.get("TPU_VISIBLE_DEVICES")
    if chips:
        count = min(count, len({chip.strip() for chip in chips.split(",") if chip.strip()}))
    return Hardware(f"TPU {_TPU_NAMES.get(kind, kind)}", count)


def _tpu_of_metadata(environment: Mapping[str, str]) -> Hardware | None:
    """The same by the metadata server; asked only on a machine of Google's that has a TPU's device files."""
    try:
        chips = [*_DEVICES.glob("accel*"), *_DEVICES.glob("vfio/[0-9]*")]
        if not chips or not _PRODUCT.read_text().startswith("Google"):
            return None
    except OSError:
        return None
    from http import client  # noqa: PLC0415  # only there

    connection = client.HTTPConnection(METADATA_HOST, timeout=METADATA_S)
    try:
        path = "/computeMetadata/v1/instance/attributes/accelerator-type"
        connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
        answer = connection.getresponse()
        told = answer.read(100).decode() if answer.status == 200 else ""
    except (OSError, client.HTTPException):
        return None
    finally:
        connection.close()
    return _tpu({**environment, "TPU_ACCELERATOR_TYPE": told})
