"""Answers that the parts of a page share: each is a callback of its own, and all ask the same at about one time."""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from millicent.warehouse.store import Warehouse

KEPT_S: Final = 3.0
"""How old an answer may be; parts of one page ask within this, and new calls show up after it."""

_lock: Final = Lock()
_held: Final[WeakKeyDictionary[Warehouse, dict[Hashable, tuple[float, Future[Any]]]]] = WeakKeyDictionary()


def asked_once(warehouse: Warehouse, key: Hashable, ask: Callable[[], Any], kept_s: float = KEPT_S) -> Any:
    """What `ask` answers, asked by the first of all who come with the same key.

    Args:
        warehouse: what is asked.
        key: everything that the answer depends on, the tenant first.
        ask: asks; what it raises is raised to all who wait for it.
        kept_s: how old the answer may be, in seconds.
    """
    with _lock:
        held = _held.setdefault(warehouse, {})
        for old in [one for one, (until, answer) in held.items() if answer.done() and until < time.monotonic()]:
            del held[old]
        mine = key not in held
        if mine:
            held[key] = (time.monotonic() + kept_s, Future())
        answer = held[key][1]
    if mine:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)
            with _lock:
                held.pop(key, None)
            raise
    return answer.result()
