"""What was acknowledged comes back, once and in order, through crashes and damage."""

import asyncio
import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.collector import spool as spool_module
from millicent.collector.spool import (
    START,
    Damaged,
    Position,
    Record,
    Spool,
    SpoolFailedError,
    SpoolFullError,
    SpoolLockedError,
    SpoolReader,
)


def append(spool: Spool, *bodies: bytes, spans: int = 1) -> None:
    async def one_by_one():
        for body in bodies:
            await spool.append(body, tenant="acme", key_id="key-1", spans=spans)

    asyncio.run(one_by_one())


def read_all(directory: Path, position: Position = START, max_bytes: int = 8 << 20) -> list[Record | Damaged]:
    reader, items = SpoolReader(directory), []
    while True:
        found, position = reader.read(position, max_bytes)
        if not found:
            return items
        items += found


def bodies(items: list[Record | Damaged]) -> list[bytes]:
    return [item.body for item in items if isinstance(item, Record)]


def newest(directory: Path) -> Path:
    return max(directory.glob("*.segment"))


def test_a_record_comes_back_as_it_was_appended(tmp_path):
    async def main():
        with Spool(tmp_path) as spool:
            await spool.append(
                b"\x1f\x8bbody", tenant="acmé", key_id="k", spans=7, signal="logs", encoding="gzip", received_ns=-5
            )

    asyncio.run(main())
    (record,) = read_all(tmp_path)
    assert isinstance(record, Record)
    assert (record.tenant, record.key_id, record.signal, record.encoding) == ("acmé", "k", "logs", "gzip")
    assert (record.spans, record.spans_before, record.received_ns, record.body) == (7, 0, -5, b"\x1f\x8bbody")


def test_an_empty_spool_has_nothing_to_read(tmp_path):
    assert SpoolReader(tmp_path).read(START) == ([], START)
    with Spool(tmp_path) as spool:
        items, position = spool.read(START)
        assert items == []
        assert spool.pending(position) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    runs=st.lists(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 9)), max_size=8), max_size=6),
    segment_bytes=st.integers(1, 900),
    max_bytes=st.integers(1, 2000),
)
def test_appends_and_restarts_keep_order_and_totals(runs, segment_bytes, max_bytes):
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            with Spool(Path(folder), segment_bytes=segment_bytes) as spool:
                for body, spans in run:
                    append(spool, body, spans=spans)
        expected = list(itertools.chain(*runs))
        found = read_all(Path(folder), max_bytes=max_bytes)
        assert [(item.body, item.spans) for item in found] == expected
        total, reader = 0, SpoolReader(Path(folder))
        for item in found:
            assert item.spans_before == total
            assert reader.pending(item.position)[0] == SpoolReader(Path(folder)).pending(item.position)[0]
            assert reader.pending(item.position)[0] == reader.total_spans() - total
            total += item.spans
        assert reader.total_spans() == total
        assert [item.position for item in found] == sorted({item.position for item in found})


def test_requests_that_wait_together_are_synced_together(tmp_path):
    commits = []

    async def main():
        with Spool(tmp_path, on_commit=lambda *facts: commits.append(facts)) as spool:
            await asyncio.gather(*(spool.append(b"x", tenant="t", key_id="k", spans=1) for _ in range(500)))

    asyncio.run(main())
    assert sum(records for records, _, _ in commits) == len(read_all(tmp_path)) == 500
    assert len(commits) < 500


def test_pending_counts_what_is_behind_a_position(tmp_path):
    with Spool(tmp_path, segment_bytes=1) as spool:
        append(spool, b"a" * 100, b"b" * 100, b"c" * 100, spans=5)
        first, second, third = read_all(tmp_path)
        all_bytes = spool.pending(START)[1]
        assert spool.pending(START) == (15, all_bytes)
        assert spool.pending(second.position) == (10, all_bytes * 2 // 3)
        assert SpoolReader(tmp_path).pending(third.position) == (5, all_bytes // 3)
        assert first.position < second.position < third.position < spool.end().position


# ---- torn tails and damage


THREE = [b"first", b"second " * 5, b"third"]


@pytest.fixture(scope="module")
def three_records(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("three")
    with Spool(directory) as spool:
        append(spool, *THREE, spans=10)
    return directory


def test_a_tail_torn_at_any_byte_is_cut_and_the_rest_comes_back(three_records, tmp_path):
    whole = newest(three_records).read_bytes()
    stops = [*(item.position.offset for item in read_all(three_records)), len(whole)]
    for cut in range(len(whole) + 1):
        directory = tmp_path / str(cut)
        shutil.copytree(three_records, directory)
        os.truncate(newest(directory), cut)
        (directory / "end").unlink()  # nothing behind the cut was synced: no one was answered
        with Spool(directory) as spool:
            complete = sum(stop <= cut for stop in stops[1:])
            assert spool.total_spans() == 10 * complete
            append(spool, b"after", spans=1)
            assert bodies(read_all(directory)) == [*THREE[:complete], b"after"]
            assert spool.total_spans() == 10 * complete + 1


def test_synced_records_that_are_cut_off_are_told_as_lost(three_records, tmp_path):
    whole = newest(three_records).stat().st_size
    stops = [*(item.position.offset for item in read_all(three_records)), whole]
    for cut in range(whole):
        directory = tmp_path / str(cut)
        shutil.copytree(three_records, directory)
        os.truncate(newest(directory), cut)
        with Spool(directory) as spool:
            append(spool, b"after", spans=1)
        found = read_all(directory)
        complete = sum(stop <= cut for stop in stops[1:])
        assert bodies(found) == [*THREE[:complete], b"after"]
        assert sum(item.spans for item in found if isinstance(item, Damaged)) == 30 - 10 * complete
        assert sum(item.spans for item in found) == SpoolReader(directory).total_spans() == 31


@pytest.mark.parametrize("restarted", [False, True])
def test_a_flipped_bit_anywhere_costs_one_record_and_is_counted(three_records, tmp_path, restarted):
    whole = newest(three_records).read_bytes()
    places = [item.position.offset for item in read_all(three_records)]
    for at in range(len(whole)):
        directory = tmp_path / str(at)
        shutil.copytree(three_records, directory)
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        newest(directory).write_bytes(flipped)
        if restarted:
            Spool(directory).close()
        hit = sum(place <= at for place in places) - 1
        found = read_all(directory)
        assert [isinstance(item, Damaged) for item in found] == [index == hit for index in range(3)]
        assert [item.spans for item in found] == [10, 10, 10]
        stop = [*places, len(whole)][hit + 1]
        assert SpoolReader(directory).set_aside(found[hit]).read_bytes() == flipped[places[hit] : stop]


def test_a_segment_that_is_nothing_but_noise_does_not_block_the_next(tmp_path):
    with Spool(tmp_path, segment_bytes=1) as spool:
        append(spool, b"a", b"b", b"c", spans=4)
    middle = sorted(tmp_path.glob("*.segment"))[1]
    middle.write_bytes(random.Random(0).randbytes(middle.stat().st_size))
    first, lost, last = read_all(tmp_path)
    assert (first.body, last.body) == (b"a", b"c")
    assert (lost.spans, lost.size) == (4, middle.stat().st_size)


def test_a_client_cannot_hide_a_record_in_a_body(tmp_path):
    with Spool(tmp_path) as spool:
        append(spool, b"genuine", spans=1)
    forged = newest(tmp_path).read_bytes()
    with Spool(tmp_path) as spool:
        append(spool, b"evil" + forged + b"evil", spans=1)
    segment = newest(tmp_path)
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    genuine, damaged = read_all(tmp_path)
    assert genuine.body == b"genuine"
    assert isinstance(damaged, Damaged)
    assert damaged.size == len(data)


def test_readers_see_nothing_that_is_not_synced(tmp_path):
    with Spool(tmp_path) as spool:
        append(spool, b"synced")
        segment = newest(tmp_path)
        segment.write_bytes(segment.read_bytes() * 2)  # as if a second record was written and not synced yet
        assert bodies(read_all(tmp_path)) == [b"synced"]


def test_a_damaged_end_file_hides_records_only_until_the_writer_is_back(three_records, tmp_path):
    shutil.copytree(three_records, tmp_path / "spool")
    (tmp_path / "spool" / "end").write_bytes(bytes(36))
    assert read_all(tmp_path / "spool") == []
    Spool(tmp_path / "spool").close()
    assert bodies(read_all(tmp_path / "spool")) == THREE


def test_records_of_a_lost_directory_are_never_behind_a_stored_position(tmp_path):
    with Spool(tmp_path / "spool") as spool:
        append(spool, b"old" * 100)
        stored = spool.end().position
    shutil.move(tmp_path / "spool", tmp_path / "lost")
    with Spool(tmp_path / "spool") as spool:
        append(spool, b"new")
        assert bodies(read_all(tmp_path / "spool", stored)) == [b"new"]


# ---- retiring


def test_segments_that_are_safe_elsewhere_are_retired_and_totals_stay(tmp_path):
    soon = datetime.now(UTC) + timedelta(hours=1)
    with Spool(tmp_path, segment_bytes=1) as spool:
        append(spool, b"a", b"b", b"c", b"d", spans=3)
        items = read_all(tmp_path)
        assert spool.retire(START, soon) == 0
        assert spool.retire(items[2].position, soon - timedelta(days=1)) == 0
        assert spool.retire(items[2].position, soon) == 2
        assert spool.pending(START)[0] == 6
        assert bodies(read_all(tmp_path)) == [b"c", b"d"]
        assert spool.retire(spool.end().position, soon) == 1
        assert spool.total_spans() == 12
    with Spool(tmp_path) as spool:
        append(spool, b"e")
        assert [item.spans_before for item in read_all(tmp_path)] == [9, 12]


def test_a_reader_that_knew_a_retired_segment_goes_on_behind_it(tmp_path):
    with Spool(tmp_path, segment_bytes=1) as spool:
        append(spool, b"a", b"b", b"c")
        reader = SpoolReader(tmp_path)
        assert bodies(reader.read(START)[0]) == [b"a"]
        spool.retire(spool.end().position, datetime.now(UTC) + timedelta(hours=1))
        items, _ = reader.read(START)
        assert bodies(items) == [b"c"]


# ---- one writer, a disk that fails, a disk that is full


def test_a_second_writer_is_refused_and_told_who_holds_the_spool(tmp_path):
    with Spool(tmp_path), pytest.raises(SpoolLockedError, match=f"process {os.getpid()}"):
        Spool(tmp_path, lock_wait_s=0.05)
    Spool(tmp_path).close()


def test_a_waiting_writer_takes_over(tmp_path):
    async def main():
        first = Spool(tmp_path)
        second = asyncio.create_task(asyncio.to_thread(Spool, tmp_path, lock_wait_s=30))
        await asyncio.to_thread(first.close)
        (await second).close()

    asyncio.run(main())


@pytest.mark.parametrize("call", ["_fdatasync", "write"])
def test_after_a_failed_write_or_sync_nothing_is_acknowledged_again(tmp_path, monkeypatch, call):
    failing, queued = threading.Event(), threading.Event()

    def fail(*_):
        failing.set()
        queued.wait(10)
        raise OSError(errno.EIO, "Input/output error")

    async def main():
        with Spool(tmp_path) as spool:
            await spool.append(b"before", tenant="t", key_id="k", spans=1)
            watching = asyncio.create_task(spool.failed())
            with monkeypatch.context() as patch:
                patch.setattr(spool_module if call == "_fdatasync" else os, call, fail)
                calls = [asyncio.create_task(spool.append(b"lost", tenant="t", key_id="k", spans=1))]
                await asyncio.to_thread(failing.wait, 10)
                calls += [asyncio.create_task(spool.append(b"behind", tenant="t", key_id="k", spans=1))]
                await asyncio.sleep(0)
                queued.set()
                await asyncio.wait([*calls, watching], timeout=10)
                assert [type(call.exception()) for call in calls] == [SpoolFailedError] * 2
                assert watching.done()
            with pytest.raises(SpoolFailedError, match="Input/output error"):
                await spool.append(b"after", tenant="t", key_id="k", spans=1)
            await spool.failed()

    asyncio.run(main())
    assert bodies(read_all(tmp_path)) == [b"before"]
    with Spool(tmp_path) as spool:
        append(spool, b"restarted")
    assert bodies(read_all(tmp_path))[0] == b"before"
    assert bodies(read_all(tmp_path))[-1] == b"restarted"


def test_the_last_part_of_the_disk_is_left_free(tmp_path):
    with Spool(tmp_path, reserve_bytes=1 << 62) as spool:
        assert not spool.has_room()
        with pytest.raises(SpoolFullError, match="free some space"):
            append(spool, b"x")
    with Spool(tmp_path) as spool:
        append(spool, b"x")


def test_a_cancelled_caller_harms_no_one(tmp_path):
    async def main():
        with Spool(tmp_path) as spool:
            calls = [asyncio.create_task(spool.append(b"x", tenant="t", key_id="k", spans=1)) for _ in range(50)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert all(call.exception() is None for call in calls[1::2])

    asyncio.run(main())
    assert len(read_all(tmp_path)) >= 25


def test_closing_writes_what_waits_and_refuses_the_rest(tmp_path):
    async def main():
        spool = Spool(tmp_path)
        call = asyncio.create_task(spool.append(b"x", tenant="t", key_id="k", spans=1))
        await asyncio.sleep(0)
        await asyncio.to_thread(spool.close)
        await call
        spool.close()
        with pytest.raises(SpoolFailedError, match="closed"):
            await spool.append(b"x", tenant="t", key_id="k", spans=1)

    asyncio.run(main())
    assert len(read_all(tmp_path)) == 1


APPENDER = """
import asyncio, sys
from pathlib import Path
from millicent.collector.spool import Spool

async def client(spool, name):
    for number in range(10**9):
        await spool.append(f"{name}-{number}".encode() + b"." * (number % 3000), tenant="t", key_id="k", spans=3)
        print(f"{name}-{number}")
        sys.stdout.flush()

async def main():
    spool = Spool(Path(sys.argv[1]), segment_bytes=200_000)
    await asyncio.gather(*(client(spool, f"{sys.argv[2]}-{n}") for n in range(8)))

asyncio.run(main())
"""


@pytest.mark.crash
def test_every_acknowledged_record_survives_sigkill_once(tmp_path):
    chance = random.Random(7)
    acknowledged = []
    for run in range(12):
        child = subprocess.Popen(
            [sys.executable, "-c", APPENDER, tmp_path, str(run)], stdout=subprocess.PIPE, text=True
        )
        with child:
            acknowledged += [line.strip() for line in itertools.islice(child.stdout, chance.randint(1, 1500))]
            child.send_signal(signal.SIGKILL)
            acknowledged += [line.strip() for line in child.stdout if line.endswith("\n")]
    Spool(tmp_path).close()
    found = read_all(tmp_path)
    names = [item.body.rstrip(b".").decode() for item in found]
    assert len(names) == len(set(names))
    assert set(acknowledged) <= set(names)
    assert not [item for item in found if isinstance(item, Damaged)]
    assert [item.spans_before for item in found] == list(range(0, 3 * len(found), 3))
    assert SpoolReader(tmp_path).total_spans() == 3 * len(found)
