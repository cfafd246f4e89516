"""The spool: what was acknowledged, on disk, in order, until the warehouse surely has it.

A directory of append-only segments (`segment.py`), one writer, any number of readers in any process (`replay.py`):

    lock        flocked by the writer, holds its process id
    end         how far the segments are synced to disk; readers never look further
    *.segment   the records
    damaged/    copies of what no longer matched its checksum

After a restart the writer cuts a torn tail and opens a new segment: old ones are never written to again.
"""

import asyncio
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from millicent.collector.replay import MIB, START, Damaged, Record, SpoolError, SpoolReader
from millicent.collector.segment import (
    ENCODINGS,
    MARK_BYTES,
    SIGNALS,
    End,
    Frame,
    Position,
    Segment,
    list_segments,
    pack,
    sync_directory,
    walk,
)

__all__ = [  # one door: whoever reads needs no more than whoever writes
    "START",
    "Damaged",
    "End",
    "Position",
    "Record",
    "Spool",
    "SpoolError",
    "SpoolFailedError",
    "SpoolFullError",
    "SpoolLockedError",
    "SpoolReader",
]

_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has only fsync


class SpoolLockedError(SpoolError):
    """Another process writes to this spool."""


class SpoolFullError(SpoolError):
    """The disk is down to its reserve: the record was not taken; later ones are, once there is room."""


class SpoolFailedError(SpoolError):
    """A write or sync failed: the record may be on disk or not, and this process takes no more."""


_GROUP_BYTES = 8 * MIB  # synced at a time: bounds how long the first of a group waits


class _Waiting(NamedTuple):
    received_ns: int
    tenant: str
    key_id: str
    signal: str
    encoding: str
    spans: int
    body: bytes
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[None]


class Spool(SpoolReader):
    """The one writer of a spool directory, and a reader like any other.

    One thread writes whatever waits, syncs once, and answers all of it; records that arrive meanwhile are the next
    group, so groups grow with the load and nothing waits for company.

    Args:
        directory: Created, private to this user, if it is missing.
        segment_bytes: Begin a new segment once one is this large.
        reserve_bytes: Take nothing while the disk has less free; None is 5% of it, at most 256 MiB.
        lock_wait_s: How long to wait for another writer to end, as after a restart.
        on_commit: Told after each sync, in the writer's thread: records, bytes, seconds that the sync took.

    Raises:
        SpoolLockedError: Another writer is alive.
        OSError: The directory cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = 64 * MIB,
        reserve_bytes: int | None = None,
        lock_wait_s: float = 0.0,
        on_commit: Callable[[int, int, float], None] | None = None,
    ) -> None:
        super().__init__(directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._segment_bytes = segment_bytes
        self._reserve_bytes = _reserve(directory) if reserve_bytes is None else reserve_bytes
        self._on_commit = on_commit
        self._lock = _lock(directory, lock_wait_s)
        try:
            self._end_file = os.open(directory / "end", os.O_RDWR | os.O_CREAT, 0o600)
            self._current, self._spans = self._recover()
            self._offset = 0
            self._file = self._create(self._current)
            self._publish()
        except BaseException:
            os.close(self._lock)
            raise
        self._waiting: deque[_Waiting] = deque()
        self._watching: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._wake = threading.Condition()
        self._closing = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    async def append(
        self,
        body: bytes,
        *,
        tenant: str,
        key_id: str,
        spans: int,
        signal: str = "traces",
        encoding: str = "identity",
        received_ns: int | None = None,
    ) -> None:
        """Return once the record is synced to disk. The caller bounds how much waits here at a time.

        Args:
            body: As received, in its `encoding`.
            tenant: Of the key, never of the body.
            key_id: Which key it came with.
            spans: In the body.
            signal: `traces`, `metrics` or `logs`.
            encoding: `identity`, `gzip` or `zstd`.
            received_ns: Unix time, UTC; None is now.

        Raises:
            SpoolFullError: The disk is down to its reserve.
            SpoolFailedError: This or an earlier write or sync failed. What a cancelled caller leaves is written too.
        """
        if signal not in SIGNALS or encoding not in ENCODINGS:
            raise ValueError(f"the spool holds {SIGNALS} in {ENCODINGS}, not {signal!r} in {encoding!r}")
        if not self.has_room():
            raise SpoolFullError(
                f"the disk of {self.directory} is down to its reserve of {self._reserve_bytes} bytes: free some space"
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        now = time.time_ns() if received_ns is None else received_ns
        with self._wake:
            if self.failure is not None or self._closing:
                raise SpoolFailedError(f"the spool takes no more: {self.failure or 'it is closed'}")
            self._waiting.append(_Waiting(now, tenant, key_id, signal, encoding, spans, body, loop, answer))
            self._wake.notify()
        await answer

    def has_room(self) -> bool:
        """Whether the disk has more free space than the reserve."""
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize > self._reserve_bytes

    async def failed(self) -> None:
        """Return when a write or sync has failed: the time for the process to end and be started again.

        A failed sync cannot be repeated: the kernel may have dropped the pages and call the next one a success.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        with self._wake:
            if self.failure is not None:
                return
            self._watching.append((loop, answer))
        await answer

    def close(self) -> None:
        """Write what waits, then let go of the directory. Safe to repeat."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._thread.join()
        for file in (self._file, self._end_file, self._lock):
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recover(self) -> tuple[Segment, int]:
        """The segment to write next, and the spans before it, after cutting what a crash left half written."""
        segments, end = list_segments(self.directory), self.end()
        if not segments or segments[-1].number < end.position.segment:
            return _next(end.position.segment, end.spans, end.size), end.spans
        last = segments[-1]
        data = (self.directory / last.name).read_bytes()
        keep, spans = 0, last.spans_before
        for piece in walk(data, last.mark, whole=True):
            if isinstance(piece, Frame):
                keep, spans = piece.stop, piece.spans_before + piece.spans
        if end.position.segment == last.number:  # what was synced is damaged, not torn: readers will tell
            keep, spans = max(keep, min(end.position.offset, len(data))), max(spans, end.spans)
        with (self.directory / last.name).open("r+b", buffering=0) as file:
            file.truncate(keep)
            os.fsync(file.fileno())
        if keep == 0 and spans == last.spans_before:
            return last, spans
        return _next(last.number, spans, last.bytes_before + keep), spans

    def _create(self, segment: Segment) -> int:
        path = self.directory / segment.name
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sync_directory(self.directory)
        return file

    def _publish(self) -> None:
        end = End(
            Position(self._current.number, self._offset),
            self._spans,
            self._current.bytes_before + self._offset,
        )
        os.pwrite(self._end_file, end.to_bytes(), 0)

    def _run(self) -> None:
        while group := self._next_group():
            try:
                size, seconds = self._commit(group)
                _answer(((waiting.loop, waiting.answer) for waiting in group), None)
                if self._on_commit is not None:
                    self._on_commit(len(group), size, seconds)
            except BaseException as error:  # noqa: BLE001  # whatever it was: answer nobody with a success again
                self._fail(error, group)
                return

    def _next_group(self) -> list[_Waiting]:
        with self._wake:
            while not self._waiting and not self._closing:
                self._wake.wait()
            group, size = [], 0
            while self._waiting and size < _GROUP_BYTES:
                group.append(self._waiting.popleft())
                size += len(group[-1].body)
            return group

    def _commit(self, group: list[_Waiting]) -> tuple[int, float]:
        if self._offset >= self._segment_bytes:
            os.close(self._file)
            self._current = _next(self._current.number, self._spans, self._current.bytes_before + self._offset)
            self._offset = 0
            self._file = self._create(self._current)
        frames = []
        spans = self._spans
        for waiting in group:
            frames.append(
                pack(
                    self._current.mark,
                    waiting.body,
                    received_ns=waiting.received_ns,
                    tenant=waiting.tenant,
                    key_id=waiting.key_id,
                    signal=waiting.signal,
                    encoding=waiting.encoding,
                    spans=waiting.spans,
                    spans_before=spans,
                )
            )
            spans += waiting.spans
        data = memoryview(b"".join(frames))
        written = 0
        while written < len(data):
            written += os.write(self._file, data[written:])
        begun = time.perf_counter()
        _fdatasync(self._file)
        seconds = time.perf_counter() - begun
        self._offset += len(data)
        self._spans = spans
        self._publish()
        return len(data), seconds

    def _fail(self, error: BaseException, group: list[_Waiting]) -> None:
        with self._wake:
            self.failure = error
            group.extend(self._waiting)
            self._waiting.clear()
            watching = list(self._watching)
        _answer(
            ((waiting.loop, waiting.answer) for waiting in group), f"the spool in {self.directory} failed: {error!r}"
        )
        _answer(watching, None)


def _answer(answers: Iterable[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]], failure: str | None) -> None:
    """Resolve futures from the writer's thread, with one wake-up per event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for loop, answer in answers:
        by_loop.setdefault(loop, []).append(answer)

    def settle(waiting: list[asyncio.Future[None]]) -> None:
        for answer in waiting:
            if answer.done():  # its caller was cancelled
                continue
            if failure is None:
                answer.set_result(None)
            else:
                answer.set_exception(SpoolFailedError(failure))

    for loop, waiting in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, waiting)


def _next(number: int, spans_before: int, bytes_before: int) -> Segment:
    # Numbers follow the clock, so that positions stored elsewhere stay behind even if this directory is lost.
    now = time.time_ns()
    return Segment(max(number + 1, now // 1000), os.urandom(MARK_BYTES), spans_before, bytes_before, now)


def _lock(directory: Path, wait_s: float) -> int:
    """A file descriptor that holds the lock until it is closed."""
    file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            holder = os.pread(file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise SpoolLockedError(
                f"the spool in {directory} is written by process {holder}: stop it, or use another data directory"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        return file


def _reserve(directory: Path) -> int:
    disk = os.statvfs(directory)
    return min(disk.f_blocks * disk.f_frsize // 20, 256 * MIB)
