"""An event arrives as one mail at a real mail server, by either way of TLS, and nothing in it becomes a header."""

import json
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from certificates import certified
from hypothesis import given
from hypothesis import strategies as st

from millicent.collector.webhooks import mail
from millicent.collector.webhooks.adapters import deliver
from millicent.collector.webhooks.addresses import GuardedClient, NotSentError
from millicent.collector.webhooks.notices import notice
from millicent.warehouse.endpoint_forms import Destination, Letterbox
from millicent.warehouse.outbox import Event
from millicent.warehouse.reach import ForbiddenAddressError, Reach, networks

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BOX = Letterbox("millicent@example.com", ("ann@example.com", "bob+ops@example.com"))
INSIDE = networks(["127.0.0.0/8"])


def event(summary="Search has spent 101 %: zu teuer für uns", type_="budget.threshold.crossed") -> Event:
    data = {"summary": summary, "severity": "error", "dedup_key": "k", "limit": "27500", "currency": "EUR"}
    body = json.dumps({"type": type_, "timestamp": NOW.isoformat(), "data": data})
    return Event(id="evt_" + "a" * 32, tenant="default", type=type_, occurred_at=NOW, alert=None, body=body)


class Mailbox:
    """Keeps what comes; `bounce@…` does not exist."""

    def __init__(self):
        self.came = []

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):  # noqa: N802 - aiosmtpd's name
        if address.startswith("bounce"):
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.came.append((envelope.mail_from, envelope.rcpt_tos, envelope.content, session.ssl is not None))
        return "250 2.0.0 kept"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of mail.example.com: for the server, and for who trusts it."""
    return certified("mail.example.com", tmp_path_factory.mktemp("mail"))


@contextmanager
def serving(**options):
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), ready_timeout=20, **options)
    controller.start()
    try:
        yield controller.port, box
    finally:
        controller.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def address(scheme, port, to="ann@example.com,bob+ops@example.com", host="mail.example.com") -> str:
    return f"{scheme}://{host}:{port}?from=millicent@example.com&to={to}"


def sends(tls, *, clear=False, timeout_s=10, reach=INSIDE):
    return GuardedClient(Reach(reach, allow_http=clear), timeout_s, tls=tls, resolve=lambda *_: ["127.0.0.1"])


def test_mail_arrives_by_starttls_with_a_login(certificate):
    theirs, ours = certificate
    seen = []

    def authenticator(server, session, envelope, mechanism, told):
        seen.append((told.login, told.password))
        return AuthResult(success=told.password == b"pa:ss", handled=False)

    with serving(tls_context=theirs, require_starttls=True, authenticator=authenticator, auth_required=True) as (
        port,
        box,
    ):
        to = Destination("smtp", address("smtp", port), ("user:pa:ss",))
        came = deliver(sends(ours), to, event(), NOW)
        assert (came.status, came.text) == (250, "2 of 2 mailboxes")
        wrong = deliver(sends(ours), Destination("smtp", address("smtp", port), ("user:no",)), event(), NOW)
        assert wrong.status == 535
    assert seen[0] == (b"user", b"pa:ss")
    ((sender, to_whom, content, secured),) = box.came
    assert (sender, to_whom) == ("millicent@example.com", ["ann@example.com", "bob+ops@example.com"])
    assert secured
    message = message_from_bytes(content, policy=default)
    assert message["Subject"] == "[error] Search has spent 101 %: zu teuer für uns"
    assert message["Message-ID"] == f"<evt_{'a' * 32}@example.com>"
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    assert "Search has spent 101 %: zu teuer für uns" in text
    assert "Limit: 27,500.00 EUR" in text


def test_mail_arrives_over_tls_from_the_first_byte(certificate):
    theirs, ours = certificate
    with serving(ssl_context=theirs) as (port, box):
        assert deliver(sends(ours), Destination("smtp", address("smtps", port)), event(), NOW).status == 250
    assert len(box.came) == 1


def test_a_server_of_another_name_gets_nothing(certificate):
    theirs, ours = certificate
    with serving(tls_context=theirs) as (port, box):
        to = Destination("smtp", address("smtp", port, host="other.example.com"))
        with pytest.raises(NotSentError, match="certificate"):
            deliver(sends(ours), to, event(), NOW)
    assert box.came == []


def test_mail_travels_in_clear_text_only_where_that_is_allowed():
    with serving() as (port, box):
        to = Destination("smtp", address("smtp", port))
        with pytest.raises(NotSentError, match="webhook_allow_http"):
            deliver(sends(None), to, event(), NOW)
        assert box.came == []
        assert deliver(sends(None, clear=True), to, event(), NOW).status == 250
    assert len(box.came) == 1


def test_one_mailbox_that_is_not_there_does_not_keep_the_others_from_theirs():
    with serving() as (port, box):
        some, none = (
            deliver(sends(None, clear=True), Destination("smtp", address("smtp", port, to)), event(), NOW)
            for to in ("ann@x.com,bounce@x.com", "bounce@x.com")
        )
    assert (some.status, some.text) == (250, "1 of 2 mailboxes")
    assert (none.status, none.text) == (550, "5.1.1 no such mailbox")
    assert [to for _, to, _, _ in box.came] == [["ann@x.com"]]


def test_a_mail_server_is_reached_at_addresses_that_were_checked():
    with serving() as (port, box):
        to = Destination("smtp", address("smtp", port))
        with pytest.raises(ForbiddenAddressError, match="webhook_allow"):
            deliver(sends(None, clear=True, reach=()), to, event(), NOW)
    assert box.came == []


def test_a_mail_server_that_says_nothing_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        to = Destination("smtp", address("smtp", listening.getsockname()[1]))
        with pytest.raises(NotSentError, match="in time"):
            deliver(sends(None, clear=True, timeout_s=0.2), to, event(), NOW)


def test_what_speaks_no_smtp_gets_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            with listening.accept()[0] as line:
                line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                line.recv(100)

        answering = threading.Thread(target=answer)
        answering.start()
        to = Destination("smtp", address("smtp", listening.getsockname()[1]))
        with pytest.raises(NotSentError, match="speaks no SMTP"):
            deliver(sends(None, clear=True), to, event(), NOW)
        answering.join()


def test_a_mail_server_that_talks_without_end_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def talk():
            with listening.accept()[0] as line:
                while not stop.wait(0.02):
                    try:
                        line.sendall(b"220-hello\r\n")
                    except OSError:
                        return

        talking = threading.Thread(target=talk)
        talking.start()
        to = Destination("smtp", address("smtp", listening.getsockname()[1]))
        with pytest.raises(NotSentError, match="in time"):
            deliver(sends(None, clear=True, timeout_s=0.3), to, event(), NOW)
        stop.set()
        talking.join()


@given(
    st.text(max_size=200) | st.sampled_from(["x\r\nBcc: eve@example.com", "x\nSubject: y", "\r\n\r\nbody", "é\r\n\t"])
)
def test_nothing_that_an_event_says_becomes_a_header(summary):
    told = event(summary)
    message = mail.written(BOX, told, notice(told), NOW)
    parsed = message_from_bytes(message.as_bytes(), policy=default)
    assert list(parsed.keys()) == [
        "From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted", "Content-Type",
        "Content-Transfer-Encoding", "MIME-Version",
    ]  # fmt: skip
    assert parsed["To"] == "ann@example.com, bob+ops@example.com"
    assert max(map(len, message.as_bytes().split(b"\r\n"))) <= 998
    assert message.as_bytes().isascii()


def test_what_ends_an_alert_is_in_the_same_thread_under_an_id_of_its_own():
    fired, over = event(), event(type_="budget.threshold.cleared")
    one, other = (mail.written(BOX, told, notice(told), NOW) for told in (fired, over))
    assert one["References"] == other["References"]
    assert other["Subject"].startswith("[error] Over: ")
