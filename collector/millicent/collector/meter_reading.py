"""What one look at the counters of an engine or an accelerator tells: Prometheus text in, whole numbers out.

Which names mean what is in the catalog's table of engines; `ALSO` adds names for what has no column there. Every label
set is a counter of its own, never a sum, so that a restart of one process cannot hide behind another. A value that
cannot be a counter's is left out, with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from millicent.pricing import catalog
from millicent.pricing.catalog import Engine

TOKENS: Final = ("prompt_tokens", "cached_tokens", "output_tokens", "requests")
"""Counters of what was served: a frontend and its workers tell of the same requests."""
COUNTERS: Final = (*TOKENS, "prefill_us", "decode_us")
ALSO: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("vllm", "cached_tokens"): ('vllm:prompt_tokens_by_source_total{source="local_cache_hit|external_kv_transfer"}',),
    ("dynamo", "output_tokens"): ("dynamo_frontend_output_sequence_tokens_sum",),
    ("tgi", "prefill_us"): ('tgi_batch_inference_duration_sum{method="prefill"}',),
    ("tgi", "decode_us"): ('tgi_batch_inference_duration_sum{method="decode"}',),
    ("triton_trtllm", "prompt_tokens"): ('nv_llm_input_token_len_sum{response_metric_type="total_input_tokens"}',),
    ("triton_trtllm", "output_tokens"): ('nv_llm_output_token_len_sum{response_metric_type="total_output_tokens"}',),
    ("triton_trtllm", "running"): ('nv_trt_llm_request_metrics{request_type="active|scheduled|context|waiting"}',),
    ("vllm_mlx", "running"): ("vllm_mlx_scheduler_running_requests",),
    ("vllm_mlx", "waiting"): ("vllm_mlx_scheduler_waiting_requests",),
}
"""Names where the catalog's column is empty, or where the text lacks its name; the first that is there is read.

vLLM's prefix cache hits are not among them: they count a waiting request again at every step.
"""
BOARD_ENERGY: Final = {"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1, "nv_energy_consumption": 1000}
"""Energy counters by board, and millijoules in their unit: the DCGM exporter's, and Triton's, which asks DCGM, too."""
BOARD_LABELS: Final = ("UUID", "uuid", "gpu_uuid")
STARTED: Final = "process_start_time_seconds"
MICROSECONDS: Final = 10**6
LARGEST: Final = 2**53
"""Beyond it the text's floating point numbers are no longer whole ones."""
AHEAD: Final = timedelta(minutes=10)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SHOWN: Final = 80
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:.]*")
_LABEL: Final = re.compile(r'(\w+)\s*=\s*"?([^",}]*)"?')

REASONS: Final = {
    "refused": "nothing listens there",
    "timeout": "no answer in time",
    "unreachable": "no connection: the name is unknown, no route, or the certificate is not trusted",
    "unavailable": "the engine answers with 5xx, as those that load a model do",
    "status": "another answer than 200: wrong path, a redirect, a login, or counters that are switched off",
    "too_large": "more text than is read of one target",
    "not_counters": "an answer that is no Prometheus text, or has no counter of a known engine or exporter",
    "bad_value": "a counter that is negative, not finite or too large; the others were read",
    "several_processes": "counters that fall again and again though the engine is there: one address for several",
    "shared_board": "several deployments claim an accelerator's energy: tell each one's own by `gpus`",
}
"""Why counters were not read."""


class UnreadableError(ValueError):
    """What a target answers cannot be read; `reason` is one of `REASONS`."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Counted(NamedTuple):
    """One counter: what it counts, which metric and labels, and what it says (tokens, requests or microseconds)."""

    counter: str
    series: str
    value: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What one answer of an engine tells.

    Attributes:
        source: Id of the engine whose names these are.
        counters: One for each label set.
        running: Requests that run or wait; None where no gauge tells.
        started: When the process began; None where it does not tell.
        boards: Millijoules of each accelerator by its UUID.
        models: What it calls the models that it serves.
        fronts: Whether it stands in front of other engines, whose counters tell of the same requests.
        refused: What was left out, and why.
    """

    source: str
    counters: tuple[Counted, ...]
    running: int | None
    started: datetime | None = None
    boards: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    fronts: bool = False
    refused: tuple[str, ...] = ()


def read_engine(text: str, declared: str | None, now: datetime) -> Reading:
    """Read an engine's counters.

    Args:
        text: Its answer, Prometheus text or OpenMetrics.
        declared: Id or name of the engine; another whose names are there is taken where this one's are not.
        now: The present; a process that says to have begun later does not tell.

    Raises:
        UnreadableError: It is no such text, or has no name of a known engine.
    """
    rows = _by_preference(declared)
    names = {row.id: _names(row) for row in rows}
    wanted = {one.name for of in names.values() for picks in of.values() for one in picks}
    found = _samples(text, wanted | {STARTED, *BOARD_ENERGY})
    told = [row for row in rows if any(one.name in found for picks in names[row.id].values() for one in picks)]
    if not told:
        raise UnreadableError("not_counters", f"{_looks_like(text)}: no counter of a known engine is in it")
    row, refused = told[0], list[str]()
    of = names[row.id]
    counters = [one for counter in COUNTERS if counter in of for one in _counted(counter, of[counter], found, refused)]
    gauges = [_gauge(of[what], found) for what in ("running", "waiting") if what in of]
    known = [value for value in gauges if value is not None]
    return Reading(
        source=row.id,
        counters=tuple(counters),
        running=sum(known) if known else None,
        started=_instant(found, now),
        boards=_boards(found, refused),
        models=tuple(sorted(_labels(found, [one for picks in of.values() for one in picks], row.model_label))),
        fronts=row.kind == "orchestrator",
        refused=tuple(refused),
    )


def read_boards(text: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Millijoules of each accelerator by its UUID, as an exporter of DCGM tells, and what was left out.

    Instances of one accelerator (MIG) repeat what the whole board drew; it is told once.

    Raises:
        UnreadableError: It is no Prometheus text, or no energy is in it.
    """
    refused = list[str]()
    boards = _boards(_samples(text, BOARD_ENERGY), refused)
    if not boards and not refused:
        raise UnreadableError(
            "not_counters",
            f"{_looks_like(text)}: it has no {next(iter(BOARD_ENERGY))}. Add that field to the exporter's counters",
        )
    return boards, tuple(refused)


# ---- which names are read


class _Pick(NamedTuple):
    """A metric by its name as a sample has it, and the label values that count (any where none are told)."""

    name: str
    labels: tuple[tuple[str, frozenset[str]], ...] = ()

    def of(self, found: Mapping[str, Sequence[Sample]]) -> list[Sample]:
        """Its samples."""
        samples = found.get(self.name, ())
        return [one for one in samples if all(one.labels.get(name) in values for name, values in self.labels)]


def _by_preference(declared: str | None) -> list[Engine]:
    """Engines whose counters have names: the declared one, then those in front of others, then as the catalog has."""
    rows = [row for row in catalog.engines() if _names(row)]
    try:
        wanted = catalog.engine(declared).id if declared else None
    except LookupError:
        wanted = None
    return sorted(rows, key=lambda row: (row.id != wanted, row.kind != "orchestrator"))


def _names(row: Engine) -> dict[str, tuple[_Pick, ...]]:
    """What is read of an engine: the metrics of each counter and gauge, in the order in which they are tried."""
    columns = {
        "prompt_tokens": row.prompt_tokens_metric,
        "cached_tokens": row.cached_tokens_metric,
        "output_tokens": row.generation_tokens_metric,
        "requests": f"{row.ttft_metric}_count" if row.ttft_metric else None,
        "prefill_us": row.prefill_time_metric,
        "decode_us": row.decode_time_metric,
        "running": row.requests_running_metric,
        "waiting": row.requests_waiting_metric,
    }
    picks = {
        what: tuple(pick for told in (name, *ALSO.get((row.id, what), ())) if told for pick in _picks(told))
        for what, name in columns.items()
    }
    return {what: told for what, told in picks.items() if told}


def _picks(told: str) -> Iterator[_Pick]:
    """`name` or `name{label="one value|another"}`, as it is or as histograms and counters have it."""
    match = _NAME.match(told)
    labels = tuple((label, frozenset(values.split("|"))) for label, values in _LABEL.findall(told))
    if match and ("{" not in told or labels):  # a label without a value does not say which samples are meant
        for suffix in ("", "_sum", "_total"):
            yield _Pick(match.group() + suffix, labels)


# ---- what they say


def _samples(text: str, wanted: Iterable[str]) -> dict[str, list[Sample]]:
    """Samples of the wanted metrics; other lines are not looked at, however many there are."""
    names = frozenset(wanted)
    lines = [line for line in text.splitlines() if line.partition("{")[0].partition(" ")[0] in names]
    found: dict[str, list[Sample]] = {}
    try:
        for family in text_string_to_metric_families("\n".join([*lines, ""])):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample)
    except (ValueError, IndexError) as error:
        raise UnreadableError("not_counters", f"{_looks_like(text)}, one line cannot be read: {error}") from error
    return found


def _counted(
    counter: str, picks: Sequence[_Pick], found: Mapping[str, Sequence[Sample]], refused: list[str]
) -> list[Counted]:
    samples = next((told for pick in picks if (told := pick.of(found))), [])
    scale = MICROSECONDS if counter.endswith("_us") else 1
    values: dict[str, int] = {}
    for one in samples:
        value = _whole(one, scale, refused)
        if value is not None:
            key = _key(one)
            values[key] = max(value, values.get(key, 0))
    return [Counted(counter, key, value) for key, value in values.items()]


def _whole(sample: Sample, scale: int, refused: list[str]) -> int | None:
    value = float(sample.value) * scale
    if math.isfinite(value) and 0 <= value <= LARGEST:
        return round(value)
    refused.append(f"{_key(sample)} says {sample.value}, which no counter can")
    return None


def _key(sample: Sample) -> str:
    """A metric and its labels as one text, the same in whatever order they come."""
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
    return f"{sample.name}{{{labels}}}" if labels else str(sample.name)


def _gauge(picks: Sequence[_Pick], found: Mapping[str, Sequence[Sample]]) -> int | None:
    samples = next((told for pick in picks if (told := pick.of(found))), [])
    values = [float(one.value) for one in samples]
    good = [value for value in values if math.isfinite(value) and 0 <= value <= LARGEST]
    return sum(map(math.ceil, good)) if good else None


def _boards(found: Mapping[str, Sequence[Sample]], refused: list[str]) -> dict[str, int]:
    boards: dict[str, int] = {}
    for name, millijoules in BOARD_ENERGY.items():
        for one in found.get(name, ()):
            value = _whole(one, millijoules, refused)
            if value is not None:
                board = next((one.labels[label] for label in BOARD_LABELS if one.labels.get(label)), None)
                board = board or "/".join(one.labels.get(label, "") for label in ("Hostname", "gpu"))
                boards[board] = max(value, boards.get(board, 0))
    return boards


def _instant(found: Mapping[str, Sequence[Sample]], now: datetime) -> datetime | None:
    """When the process began; None where several tell, or none that can be."""
    values = {float(one.value) for one in found.get(STARTED, ())}
    seconds = values.pop() if len(values) == 1 else math.nan
    if not _EARLIEST.timestamp() <= seconds <= (now + AHEAD).timestamp():
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _labels(found: Mapping[str, Sequence[Sample]], picks: Iterable[_Pick], label: str | None) -> set[str]:
    return {one.labels[label] for pick in picks for one in found.get(pick.name, ()) if label and one.labels.get(label)}


def _looks_like(text: str) -> str:
    """What an answer begins with, for whoever wonders why it cannot be read."""
    start = " ".join(text[: 4 * _SHOWN].split())[:_SHOWN]
    if start.startswith(("{", "[")):
        return f"an answer in JSON ({start}…; TensorRT-LLM has its counters at /prometheus/metrics)"
    return f"an answer that begins with {start!r}" if start else "an empty answer"
