"""An event as mail, over TLS from the first byte (`smtps`) or from STARTTLS on (`smtp`).

The address of the mail server is checked like any other. Every attempt has the same Message-ID, so that
mailboxes show once what came twice.
"""

from __future__ import annotations

import hashlib
import smtplib
import socket
import ssl
import time
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final

from millicent.collector.webhooks.addresses import MOST_TEXT, Answered, GuardedClient, NotSentError
from millicent.collector.webhooks.notices import Notice, line
from millicent.warehouse.endpoint_forms import Destination, Letterbox, letterbox
from millicent.warehouse.outbox import Event
from millicent.warehouse.reach import Target

_TOOK: Final = 250
_LEAST: Final = 200
_SEVEN_BITS: Final = SMTP.clone(cte_type="7bit")


class _Speaking(smtplib.SMTP):
    """SMTP over a connection that is there already."""

    def __init__(self, line: socket.socket, to: Target, helo: str, timeout_s: float) -> None:
        self._there = line
        super().__init__(to.host, to.port, local_hostname=helo, timeout=timeout_s)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        del host, port, timeout
        return self._there


def send(client: GuardedClient, to: Destination, event: Event, told: Notice, now: datetime) -> Answered:
    """Hand a mail over to a server; taken when the status is 250.

    Raises:
        ForbiddenAddressError: endpoints may not reach the server; nothing was connected to.
        NotSentError: it did not answer, or offers no encryption.
    """
    at = client.reach.target(to.address, ("smtps", "smtp"))
    box = letterbox(at)
    message = written(box, event, told, now)
    with client.line(at) as line:
        try:
            return _handed_over(client, line.socket, at, to.secrets, box, message)
        except smtplib.SMTPResponseException as error:
            if error.smtp_code < _LEAST:
                raise NotSentError(f"{at.authority} speaks no SMTP: correct the port of the address") from error
            return _answered(error.smtp_code, error.smtp_error)
        except smtplib.SMTPRecipientsRefused as error:
            code, why = next(iter(error.recipients.values()))
            return _answered(code, why)
        except ssl.SSLCertVerificationError as error:
            raise NotSentError(f"{at.authority} has no certificate that is trusted: {error.verify_message}") from error
        except (OSError, ValueError) as error:  # all of smtplib's own are OSErrors
            if time.monotonic() >= line.until or isinstance(error, TimeoutError):
                raise NotSentError(f"{at.authority} did not answer in time") from error
            raise NotSentError(f"{at.authority} did not take mail: {str(error) or type(error).__name__}") from error


def written(box: Letterbox, event: Event, told: Notice, now: datetime) -> EmailMessage:
    """The mail that tells of an event."""
    domain = box.sender.rpartition("@")[2]
    over = "Over: " if told.status == "resolved" else ""
    message = EmailMessage(policy=_SEVEN_BITS)
    message["From"] = f"Millicent <{box.sender}>"
    message["To"] = ", ".join(box.to)
    message["Subject"] = line(f"[{told.severity}] {over}{told.summary}", 200)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{event.id}@{domain}>"
    thread = f"<{hashlib.sha256(told.key.encode()).hexdigest()[:32]}@{domain}>"
    message["In-Reply-To"], message["References"] = thread, thread
    message["Auto-Submitted"] = "auto-generated"
    parts = [
        told.summary,
        told.driver,
        "\n".join(f"{name}: {said}" for name, said in told.facts),
        "\n".join(("What moved it:", *(f"- {one}" for one in told.drivers))) if told.drivers else "",
        told.link or "",
        f"{event.type}, {event.id}",
    ]
    message.set_content("\n\n".join(part for part in parts if part) + "\n")
    return message


def _handed_over(
    client: GuardedClient, plain: socket.socket, at: Target, secrets: tuple[str, ...], box: Letterbox,
    message: EmailMessage,
) -> Answered:  # fmt: skip
    """Speak SMTP, to the end of one mail."""
    first = client.secured(plain, at) if at.scheme == "smtps" else plain
    smtp = _Speaking(first, at, box.sender.rpartition("@")[2], client.timeout_s)
    try:
        smtp.ehlo()
        if at.scheme == "smtp":
            _secure(smtp, client, at)
        if secrets:
            user, _, password = secrets[0].partition(":")
            smtp.login(user, password)
        refused = smtp.send_message(message, box.sender, box.to)
        return _answered(_TOOK, f"{len(box.to) - len(refused)} of {len(box.to)} mailboxes".encode())
    finally:
        smtp.close()


def _secure(smtp: smtplib.SMTP, client: GuardedClient, at: Target) -> None:
    try:
        smtp.starttls(context=client.tls)
    except smtplib.SMTPNotSupportedError as error:
        if not client.reach.allow_http:
            raise NotSentError(
                f"{at.authority} offers no STARTTLS, and mail would travel in clear text: write smtps://, use another "
                "server, or set webhook_allow_http"
            ) from error
    else:
        smtp.ehlo()


def _answered(code: int, said: bytes | str) -> Answered:
    text = said if isinstance(said, str) else said.decode(errors="replace")
    return Answered(code, {}, line(text, MOST_TEXT))
