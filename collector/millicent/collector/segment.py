"""The files of the spool: segments, how records lie in them, and how to find the next good one behind a bad one.

A segment's name holds what readers need before they open it: number, mark, spans and bytes of all segments before
it, and when it was created (Unix ns). The file holds records and nothing else:

    mark 4 · length 4 · crc 4 │ version, signal, encoding, received, spans, spans before │ tenant │ key id │ body

`length` counts what follows the crc; the crc (CRC32C) covers mark, length and what follows. The mark is drawn at
random for each segment, so nothing that a client puts into a body can pass for a record.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import google_crc32c

SIGNALS = ("traces", "metrics", "logs")  # stored as their index: append, never reorder
ENCODINGS = ("identity", "gzip", "zstd")  # likewise
MARK_BYTES = 4

_VERSION = 1
_END = struct.Struct("<QQQQ")  # segment, offset, spans, bytes; their CRC32C follows
_FRAME = struct.Struct("<4sII")  # mark, length, crc
_FACTS = struct.Struct("<BBBqIQHH")  # version, signal, encoding, received (ns), spans, spans before, two lengths


class Position(NamedTuple):
    """A place in the spool: two integers, ordered. `START` is before everything."""

    segment: int
    offset: int


class End(NamedTuple):
    """Where the synced part of the spool ends, and the totals since it began."""

    position: Position
    spans: int
    size: int  # bytes

    def to_bytes(self) -> bytes:
        """For the file `end`."""
        numbers = _END.pack(*self.position, self.spans, self.size)
        return numbers + _crc(numbers)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self | None:
        """Read it back; None where the checksum does not match, as beside a write."""
        numbers = data[: _END.size]
        if len(numbers) < _END.size or data[_END.size :] != _crc(numbers):
            return None
        segment, offset, spans, size = _END.unpack(numbers)
        return cls(Position(segment, offset), spans, size)


class Segment(NamedTuple):
    """A segment as its file name tells it."""

    number: int
    mark: bytes
    spans_before: int
    bytes_before: int
    created_ns: int

    @property
    def name(self) -> str:
        """The file's name, which sorts by number."""
        return f"{self.number:016d}-{self.mark.hex()}-{self.spans_before}-{self.bytes_before}-{self.created_ns}.segment"

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Read a name back.

        Raises:
            ValueError: Not the name of a segment.
        """
        number, mark, spans, size, created = name.removesuffix(".segment").split("-")
        return cls(int(number), bytes.fromhex(mark), int(spans), int(size), int(created))


class Frame(NamedTuple):
    """A record that matches its checksum, and where it lies in the bytes that were walked."""

    start: int
    stop: int
    received_ns: int
    tenant: str
    key_id: str
    signal: str
    encoding: str
    spans: int
    spans_before: int
    body: bytes


class Gap(NamedTuple):
    """Bytes between good records that are none."""

    start: int
    stop: int


def pack(
    mark: bytes,
    body: bytes,
    *,
    received_ns: int,
    tenant: str,
    key_id: str,
    signal: str,
    encoding: str,
    spans: int,
    spans_before: int,
) -> bytes:
    """Serialise one record for the segment with this mark."""
    who, key = tenant.encode(), key_id.encode()
    facts = _FACTS.pack(
        _VERSION,
        SIGNALS.index(signal),
        ENCODINGS.index(encoding),
        received_ns,
        spans,
        spans_before,
        len(who),
        len(key),
    )
    head = b"".join((facts, who, key))
    length = len(head) + len(body)
    crc = google_crc32c.extend(google_crc32c.extend(_seed(mark, length), head), body)
    return b"".join((_FRAME.pack(mark, length, crc), head, body))


def walk(data: bytes, mark: bytes, at: int = 0, *, whole: bool) -> Iterator[Frame | Gap]:
    """The records in `data` from an offset on.

    Args:
        data: Bytes of one segment.
        mark: The segment's.
        at: Where a record starts.
        whole: `data` ends where the segment ends, so what is no record is a gap and is stepped over; otherwise it
            may be a record that goes on behind `data`, and the walk stops there.

    Raises:
        ValueError: A record of a later version of this format.
    """
    while at < len(data):
        frame = _frame_at(data, at, mark)
        if frame is None:
            if not whole:
                return
            stop = _next_good(data, at + 1, mark)
            yield Gap(at, stop)
            at = stop
        else:
            yield frame
            at = frame.stop


def _frame_at(data: bytes, at: int, mark: bytes) -> Frame | None:
    start = at + _FRAME.size
    if start + _FACTS.size > len(data):
        return None
    found, length, crc = _FRAME.unpack_from(data, at)
    if found != mark or length < _FACTS.size or start + length > len(data):
        return None
    payload = data[start : start + length]
    if google_crc32c.extend(_seed(mark, length), payload) != crc:
        return None
    version, signal, encoding, received_ns, spans, spans_before, who, key = _FACTS.unpack_from(payload)
    if version != _VERSION:
        raise ValueError(f"spool record of format {version}, this release reads {_VERSION}: run the newer release")
    split = _FACTS.size + who
    return Frame(
        at,
        start + length,
        received_ns,
        payload[_FACTS.size : split].decode(),
        payload[split : split + key].decode(),
        SIGNALS[signal],
        ENCODINGS[encoding],
        spans,
        spans_before,
        payload[split + key :],
    )


def _next_good(data: bytes, at: int, mark: bytes) -> int:
    while (at := data.find(mark, at)) >= 0:
        if _frame_at(data, at, mark) is not None:
            return at
        at += 1
    return len(data)


def _seed(mark: bytes, length: int) -> int:
    crc: int = google_crc32c.value(mark + length.to_bytes(4, "little"))
    return crc


def list_segments(directory: Path) -> list[Segment]:
    """All segments of a spool, oldest first."""
    return sorted(Segment.from_name(path.name) for path in directory.glob("*.segment"))


def sync_directory(directory: Path) -> None:
    """Make created and deleted files survive a power cut."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _crc(data: bytes) -> bytes:
    crc: int = google_crc32c.value(data)
    return crc.to_bytes(4, "little")
