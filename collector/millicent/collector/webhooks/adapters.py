"""One event in the words of each kind of endpoint."""

from __future__ import annotations

from datetime import datetime

from millicent.collector.webhooks.addresses import Answered, GuardedClient, Outgoing
from millicent.warehouse.endpoint_forms import Destination
from millicent.warehouse.outbox import Event


def outgoing(to: Destination, event: Event, now: datetime) -> Outgoing:
    """The request that tells an endpoint of an event; not of `smtp`."""
    raise NotImplementedError


def deliver(client: GuardedClient, to: Destination, event: Event, now: datetime) -> Answered:
    """Tell an endpoint of an event, by HTTP or by mail; taken when the status is from 200 to 299.

    Raises:
        ForbiddenAddressError: endpoints may not reach its address; nothing was connected to.
        NotSentError: no answer came.
    """
    raise NotImplementedError
