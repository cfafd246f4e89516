"""What goes wrong inside the SDK stays inside it: caught, logged once per place, counted."""

import contextlib
import functools
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import ParamSpec

_P = ParamSpec("_P")

_log = logging.getLogger("millicent.sdk")
_lock = threading.RLock()  # a stream may be collected, and its span end, while its own thread holds it
_counts: Counter[str] = Counter()
_places: set[str] = set()

_STATS = (
    *("internal_errors", "spans_ended", "spans_exported", "spans_failed", "spans_dropped"),
    *("energy_exported", "energy_failed", "budget_denied", "budget_unchecked"),
)


def _after_fork() -> None:
    """Count for the child alone, and never wait for a lock that a thread of the parent held."""
    global _lock  # noqa: PLW0603  # the old one may never be released
    _lock = threading.RLock()
    _counts.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def sdk_stats() -> dict[str, int]:
    """Return what the SDK did in this process since it was imported.

    Returns:
        Counters by name: `internal_errors` (caught inside the SDK, the app saw nothing),
        `spans_ended` (meant for the collector), `spans_exported` (acknowledged by it), `spans_failed` (refused by
        it, or given up after retries), `spans_dropped` (the queue was full or closed); the rest is under way.
        `energy_exported` and `energy_failed`: the same of readings of energy counters, one per accelerator; what a
        failed one would have told, the next one tells. `budget_denied` (calls that a budget said no to) and
        `budget_unchecked` (calls for which nobody answered in time).
    """
    with _lock:
        return {name: _counts[name] for name in _STATS}


def count(name: str, amount: int = 1) -> None:
    """Add to one of the counters of `sdk_stats`."""
    with _lock:
        _counts[name] += amount


def note(error: Exception) -> None:
    """Count an internal failure and log it the first time its place fails.

    The message of the exception is left out: it may quote a prompt.
    """
    with contextlib.suppress(Exception):
        step = error.__traceback__
        while step is not None and step.tb_next is not None:
            step = step.tb_next
        place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}" if step else "unknown place"
        with _lock:
            _counts["internal_errors"] += 1
            first = place not in _places
            _places.add(place)
        if first:
            _log.warning(
                "A call could not be tracked in full (%s at %s); the app is not affected. "
                "Said once per place; millicent.sdk.sdk_stats() counts every time.",
                type(error).__name__,
                place,
            )


def harmless(function: Callable[_P, None]) -> Callable[_P, None]:
    """Make a procedure that cannot raise: what it raises is noted instead."""

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # the promise of this module
            note(error)

    return guarded


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Make a block that cannot raise: what it raises is noted instead."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # the promise of this module
        note(error)
