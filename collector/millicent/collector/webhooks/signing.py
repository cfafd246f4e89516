"""Headers that prove to a webhook who wrote, and tell it what: Standard Webhooks 1.0, and CloudEvents 1.0 beside.

The signature is an HMAC-SHA256 over id, time of this attempt and the very bytes of the body, one for each secret that
signs now, so that a receiver may take the new one at any time of a rotation.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from millicent.warehouse.endpoints import PREFIX
from millicent.warehouse.instants import text_of
from millicent.warehouse.outbox import Event

_ODD: Final = re.compile(r"[^A-Za-z0-9._~-]")


def headers(event: Event, secrets: Sequence[str], now: datetime) -> dict[str, str]:
    """Headers of an attempt at an instant to tell an event.

    Args:
        event: whose `body` is sent as it is.
        secrets: `whsec_…`, newest first; all of them sign.
        now: aware; receivers refuse what is minutes old, so it is that of the attempt.
    """
    return {
        "content-type": "application/json",
        "user-agent": "millicent",
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signature(event, secret, now) for secret in secrets),
        "ce-specversion": "1.0",
        "ce-id": event.id,
        "ce-source": f"urn:millicent:{_ODD.sub('-', event.tenant)}",
        "ce-type": event.type,
        "ce-time": text_of(event.occurred_at),
    }


def signature(event: Event, secret: str, now: datetime) -> str:
    """`v1,` and the HMAC under one secret."""
    signed = f"{event.id}.{int(now.timestamp())}.{event.body}".encode()
    digest = hmac.new(b64decode(secret.removeprefix(PREFIX)), signed, hashlib.sha256).digest()
    return f"v1,{b64encode(digest).decode()}"
