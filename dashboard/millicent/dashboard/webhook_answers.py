"""What the API answers about endpoints of alerts and what was sent to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from millicent.warehouse.endpoint_forms import Kind
from millicent.warehouse.outbox import State


class Answer(BaseModel):
    """Base of what is told of alerts: read from objects, described by the words beside each field."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class EndpointAnswer(Answer):
    """Where events are sent."""

    id: str
    """`ep_…`"""
    name: str
    kind: Kind
    """what it understands"""
    shown: str
    """its address without what may be secret in it"""
    types: list[str]
    """of events that it wants; none: all"""
    enabled: bool
    """whether anything is sent; what waits is kept"""
    reason: str | None
    """why it is not enabled"""
    author: str
    """who set it last"""
    created_at: datetime
    """when it was first set"""
    ended_at: datetime | None
    """when it was taken away"""


class MadeAnswer(EndpointAnswer):
    """An endpoint with a secret that was made for it."""

    secret: str | None
    """the secret that was made, shown here only; null where none was"""


class HealthAnswer(EndpointAnswer):
    """An endpoint and how it is doing."""

    state: str
    """ok, failing, disabled or unused"""
    last_success_at: datetime | None
    """when something arrived last"""
    failing_since: datetime | None
    """since when nothing arrives; null while it is well"""
    last_error: str | None
    """why the last attempt failed; null while it is well"""
    pending: int
    """deliveries that wait"""
    oldest_pending_at: datetime | None
    """since when the oldest of them does"""
    dead: int
    """deliveries that were given up"""


class EndpointsAnswer(Answer):
    """Every endpoint."""

    endpoints: list[HealthAnswer]
    """by name"""


class AttemptAnswer(Answer):
    """One attempt to deliver."""

    at: datetime
    """when it began"""
    status: int | None
    """what was answered; null where nothing was"""
    error: str | None
    """why it failed, where the status does not say it"""
    took_ms: int
    """how long it took; 0 where that is not known"""
    answer: str | None
    """how the body that came back begins"""


class DeliveryAnswer(Answer):
    """What became of one event at one endpoint."""

    id: int
    event: str
    """id of the event, the same at every attempt: `webhook-id`"""
    type: str
    """of the event"""
    occurred_at: datetime
    """when it happened"""
    alert: str | None
    """id of the alert that it is about"""
    endpoint: str
    """id of the endpoint"""
    endpoint_name: str
    state: State
    """dead: given up"""
    tries: int
    """attempts that failed since it was last asked for"""
    next_at: datetime | None
    """when it is tried next"""
    created_at: datetime
    """when it was first asked for"""
    ended_at: datetime | None
    """when it was delivered or given up"""
    attempts: list[AttemptAnswer]
    """every one, oldest first"""


class DeliveriesAnswer(Answer):
    """A page of deliveries."""

    deliveries: list[DeliveryAnswer]
    """newest first"""
    next: int | None
    """`before` of the next page; null on the last"""


class EventAnswer(Answer):
    """An event."""

    id: str
    """`evt_…`"""
    alert: str | None
    """id of the alert that it is about"""
    type: str
    timestamp: datetime
    """when it happened"""
    data: dict[str, Any]
    """what is told, as endpoints get it"""


class DueAnswer(Answer):
    """What is sent again."""

    deliveries: int
    """how many are due now"""
