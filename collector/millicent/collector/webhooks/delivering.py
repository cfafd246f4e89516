"""Sending what the outbox holds: every endpoint by itself, one event at a time, until it has arrived or is given up.

An endpoint that is slow, down or gone keeps no other waiting. What was sent and not marked, because the process ended
in between, is sent again once its lease has run out, with the same id.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

import structlog

from millicent.collector.webhooks import adapters
from millicent.collector.webhooks.addresses import Answered, GuardedClient, NotSentError
from millicent.warehouse import endpoints, outbox
from millicent.warehouse.control import Control
from millicent.warehouse.endpoint_forms import BadEndpointError, Destination
from millicent.warehouse.outbox import Event, Outcome, State
from millicent.warehouse.reach import ForbiddenAddressError, Reach

IDLE_S: Final = 0.5
GRACE_S: Final = 5.0
"""How long an end waits for what is under way."""

_MOVED: Final = "a redirect, which is not followed: set the address that it leads to"

Send = Callable[[Destination, Event, datetime], Answered]
"""Tells an endpoint of an event at an instant; raises NotSentError where no answer came, ForbiddenAddressError where
its address is not to be reached."""

log = structlog.get_logger("millicent.webhooks")


class Deliverer:
    """Sends the deliveries of a control plane.

    Args:
        control: where they are.
        send: sends one; see `Send`.
        clock: what time it is, in UTC.
        idle_s: how long to rest when nothing is due.
    """

    def __init__(
        self, control: Control, send: Send, clock: Callable[[], datetime] = lambda: datetime.now(UTC), *,
        idle_s: float = IDLE_S,
    ) -> None:  # fmt: skip
        self._control = control
        self._send = send
        self._clock = clock
        self._idle_s = idle_s
        self._busy: dict[str, threading.Thread] = {}

    @classmethod
    def reaching(cls, control: Control, reach: Reach) -> Deliverer:
        """One that really sends, to what may be reached."""
        return cls(control, partial(adapters.deliver, GuardedClient(reach)))

    def run(self, stop: threading.Event) -> None:
        """Send whatever is due until told to stop; what goes wrong is logged, and done again."""
        while not stop.wait(self._idle_s):
            try:
                self._begin(stop)
            except Exception as error:  # noqa: BLE001 - the next turn may work
                _tell("deliveries cannot be read", error)
        until = time.monotonic() + GRACE_S
        for thread in tuple(self._busy.values()):
            thread.join(max(0.0, until - time.monotonic()))

    def step(self, endpoint: str) -> State | None:
        """Send an endpoint the delivery that has been due longest; what it is now, None when none is due."""
        taken = outbox.take(self._control, endpoint, self._clock())
        if taken is None:
            return None
        outcome = self._sent(taken.tenant, endpoint, taken.event)
        state = outbox.attempted(self._control, taken, outcome, self._clock())
        if not outcome.arrived:
            why = outcome.error or f"status {outcome.status}"
            log.warning("not delivered", endpoint=endpoint, sent=taken.event.id, tries=taken.tries + 1, why=why)
        return state

    def _begin(self, stop: threading.Event) -> None:
        """Have a thread of its own send to every endpoint for which something is due, unless one does."""
        self._busy = {name: thread for name, thread in self._busy.items() if thread.is_alive()}
        for endpoint in outbox.waiting(self._control, self._clock()):
            if endpoint not in self._busy:
                thread = threading.Thread(target=self._drain, args=(endpoint, stop), name=endpoint, daemon=True)
                self._busy[endpoint] = thread
                thread.start()

    def _drain(self, endpoint: str, stop: threading.Event) -> None:
        try:
            while not stop.is_set() and self.step(endpoint) is not None:
                pass
        except Exception as error:  # noqa: BLE001 - its lease runs out, and it is tried again
            _tell("a delivery cannot be stored", error, endpoint=endpoint)

    def _sent(self, tenant: str, endpoint: str, event: Event) -> Outcome:
        began = time.monotonic()

        def failed(why: str) -> Outcome:
            return Outcome(error=why, took_ms=_ms_since(began))

        try:
            now = self._clock()
            answered = self._send(endpoints.destination(self._control, tenant, endpoint, now), event, now)
        except (NotSentError, ForbiddenAddressError, BadEndpointError) as error:
            return failed(str(error))
        except Exception as error:  # noqa: BLE001 - one event that cannot be sent must not keep the others
            _tell("an event cannot be sent", error, endpoint=endpoint, sent=event.id)
            return failed(f"it could not be sent: {type(error).__name__}")
        moved = 300 <= answered.status < 400
        return Outcome(
            status=answered.status, error=_MOVED if moved else None, took_ms=_ms_since(began), answer=answered.text,
            retry_after=_retry_after(answered.headers.get("retry-after", ""), now),
        )  # fmt: skip


def _ms_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _retry_after(told: str, now: datetime) -> timedelta | None:
    """How long an answer asks to wait: seconds, or until a date."""
    if told.isascii() and told.isdecimal():
        return timedelta(seconds=int(told[:9]))
    with suppress(ValueError, TypeError):
        until = parsedate_to_datetime(told)
        return max(timedelta(), until.replace(tzinfo=until.tzinfo or UTC) - now)
    return None


def _tell(what: str, error: Exception, **about: str) -> None:
    """Log a failure by its name and place alone: its message or variables might hold an address."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].name}:{frames[-1].lineno}" if frames else None
    log.error(what, error=type(error).__name__, place=place, **about)
