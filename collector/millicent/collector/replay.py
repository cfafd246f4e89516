"""Reading the spool: the records from a stored position on, as the loader does, or all of them, to rebuild.

Readers trust the file `end` for how far the segments are synced, so a record half written is never met, and whatever
lies before it and is no record has been damaged since. Each record carries the number of spans before it, of all time:
what a damaged one held is the step that it leaves.
"""

import os
from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise, zip_longest
from pathlib import Path

from millicent.collector.segment import (
    End,
    Frame,
    Gap,
    Position,
    Segment,
    list_segments,
    sync_directory,
    walk,
)

MIB = 1 << 20


class SpoolError(Exception):
    """The spool cannot do what was asked; the message says why and what helps."""


START = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Record:
    """One acknowledged request, its body as received."""

    position: Position
    received_ns: int  # Unix time, UTC
    tenant: str
    key_id: str
    signal: str  # traces, metrics, logs
    encoding: str  # of the body: identity, gzip, zstd
    spans: int
    spans_before: int  # in all records before this one, since the spool began
    body: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """Acknowledged records that cannot be read any more."""

    position: Position
    size: int  # bytes; 0 where they are gone altogether
    spans: int  # that they held, told by the totals on both sides


class SpoolReader:
    """The records of a spool, read without its lock, from any process and any thread."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._segments: list[Segment] = []
        self._met = (START, 0)  # the last place whose running total was met: spares a scan

    def end(self) -> End:
        """How far the records are synced. Cheap enough to poll."""
        for _ in range(100):  # a read beside a write may see half of it
            try:
                data = (self.directory / "end").read_bytes()
            except FileNotFoundError:
                break
            if (end := End.from_bytes(data)) is not None:
                return end
        return End(START, 0, 0)

    def total_spans(self) -> int:
        """Spans in all records since the spool began, retired segments included."""
        return self.end().spans

    def pending(self, position: Position) -> tuple[int, int]:
        """Spans and bytes from a position to the end."""
        end = self.end()
        if position >= end.position:
            return 0, 0
        segment = self._segment_from(position.segment, end)
        if segment.number != position.segment:
            return end.spans - segment.spans_before, end.size - segment.bytes_before
        return end.spans - self._total_at(segment, position), end.size - segment.bytes_before - position.offset

    def read(self, position: Position, max_bytes: int = 8 * MIB) -> tuple[list[Record | Damaged], Position]:
        """The next records, at least one where there is one, and the position behind them.

        Args:
            position: `START`, or what an earlier call returned. A retired segment continues at the next one.
            max_bytes: How much of the segment to read; a record larger than this is returned alone.

        Returns:
            Records of one segment in the order of acknowledgement, with a `Damaged` for each stretch that cannot be
            read. Call again from the new position for more; an empty list means that there is none yet.

        Raises:
            ValueError: A record that a later release wrote.
        """
        end = self.end()
        while position < end.position:
            segment = self._segment_from(position.segment, end)
            if segment.number != position.segment:
                position = Position(segment.number, 0)
            items, position = self._read_segment(segment, position, max_bytes, end)
            if items or segment.number == end.position.segment:
                return items, position
            following = self._segment_from(segment.number + 1, end)
            lost = following.spans_before - self._total_at(segment, position)
            missing = Damaged(position, 0, lost)
            position = Position(following.number, 0)
            self._met = (position, following.spans_before)
            if lost:
                return [missing], position
        return [], position

    def set_aside(self, damaged: Damaged) -> Path:
        """Copy damaged bytes to `damaged/`, where they outlive their segment. Safe to repeat."""
        folder = self.directory / "damaged"
        folder.mkdir(mode=0o700, exist_ok=True)
        position = damaged.position
        segment = self._segment_from(position.segment, self.end())
        copy = folder / f"{position.segment:016d}-{position.offset}"
        copy.write_bytes(self._bytes(segment, position.offset, position.offset + damaged.size))
        return copy

    def retire(self, before: Position, older_than: datetime) -> int:
        """Delete segments that are safe elsewhere, oldest first.

        Args:
            before: Everything before this position is safe elsewhere.
            older_than: Aware. Only segments whose last record was acknowledged before this instant.

        Returns:
            The number of segments deleted. The newest always stays, it carries the totals on.
        """
        segments = list_segments(self.directory)
        deleted = 0
        for segment, following in pairwise(segments):
            if segment.number >= before.segment or following.created_ns >= older_than.timestamp() * 1e9:
                break
            (self.directory / segment.name).unlink(missing_ok=True)
            deleted += 1
        if deleted:
            sync_directory(self.directory)
        return deleted

    def _segment_from(self, number: int, end: End) -> Segment:
        """The segment of this number, or the first one behind it where that is retired."""
        segments = self._segments
        for _ in range(2):
            at = bisect_left(segments, number, key=lambda segment: segment.number)
            if at < len(segments) and (self.directory / segments[at].name).exists():
                return segments[at]
            segments = self._segments = list_segments(self.directory)  # newer ones were opened, or this one retired
        raise SpoolError(
            f"no segment {number} or later in {self.directory}, though records were synced up to segment "
            f"{end.position.segment}: restore the directory from a backup"
        )

    def _bytes(self, segment: Segment, start: int, stop: int) -> bytes:
        with (self.directory / segment.name).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), max(stop - start, 0), start)

    def _read_segment(
        self, segment: Segment, position: Position, max_bytes: int, end: End
    ) -> tuple[list[Record | Damaged], Position]:
        """Records from here on in one segment, and the position behind them."""
        at, stop = position.offset, end.position.offset
        if segment.number != end.position.segment:
            stop = (self.directory / segment.name).stat().st_size
        data = self._bytes(segment, at, min(stop, at + max_bytes))
        found = list(walk(data, segment.mark, whole=False)) or self._first(segment, at, stop)
        items: list[Record | Damaged] = []
        for piece, following in zip_longest(found, found[1:]):
            place = Position(segment.number, at + piece.start)
            if isinstance(piece, Gap):
                # A gap is followed by a good record or by the end of the segment.
                after = following.spans_before if isinstance(following, Frame) else self._total_behind(segment, end)
                items.append(Damaged(place, piece.stop - piece.start, after - self._total_at(segment, place)))
                total = after
            else:
                items.append(Record(place, *piece[2:]))
                total = piece.spans_before + piece.spans
            self._met = (Position(segment.number, at + piece.stop), total)
        return items, Position(segment.number, at + found[-1].stop) if found else position

    def _first(self, segment: Segment, at: int, stop: int) -> list[Frame | Gap]:
        """The next record, whatever its size, or damage and the record behind it, or nothing at the end."""
        for size in (64 * 1024, 4 * MIB):
            data = self._bytes(segment, at, min(stop, at + size))
            for frame in walk(data, segment.mark, whole=False):
                return [frame]
        found = []
        for piece in walk(self._bytes(segment, at, stop), segment.mark, whole=True):
            found.append(piece)
            if isinstance(piece, Frame):
                break
        return found

    def _total_at(self, segment: Segment, position: Position) -> int:
        """Spans in all records before a position of this segment."""
        met, total = self._met
        if met == position:
            return total
        total = segment.spans_before
        for piece in walk(self._bytes(segment, 0, position.offset), segment.mark, whole=True):
            if isinstance(piece, Frame):
                total = piece.spans_before + piece.spans
        self._met = (position, total)
        return total

    def _total_behind(self, segment: Segment, end: End) -> int:
        if segment.number == end.position.segment:
            return end.spans
        return self._segment_from(segment.number + 1, end).spans_before
