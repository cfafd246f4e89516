"""An endpoint that could be told nothing is refused when it is set, in words that help; what is shown opens no door."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.warehouse.endpoint_forms import PAGERDUTY, BadEndpointError, check, letterbox, shown, target
from millicent.warehouse.reach import Reach

SECRET = "whsec_" + "QUFB" * 8
KEY = "0123456789abcdef" * 2
SLACK = "https://hooks.slack.com/services/T0/B0/hunter2"
TEAMS = (
    "https://prod-1.westeurope.logic.azure.com:443/workflows/x/triggers/manual/paths/invoke?api-version=1&sig=hunter2"
)
MAIL = "smtps://mail.example.com?from=m@example.com&to=ann@example.com,bob+ops@example.com"


@pytest.mark.parametrize(
    ("kind", "address", "secret"),
    [
        ("webhook", "https://hooks.example.com/hunter2", None),
        ("webhook", "https://hooks.example.com/hunter2?key=hunter2", SECRET),
        ("slack", SLACK, None),
        ("slack", "https://mattermost.example.com/hooks/hunter2", None),
        ("teams", TEAMS, None),
        ("teams", "https://default1.environment.api.powerplatform.com/powerautomate/x?sig=hunter2", None),
        ("pagerduty", PAGERDUTY, KEY),
        ("pagerduty", "https://events.eu.pagerduty.com/v2/enqueue", KEY),
        ("alertmanager", "https://am.example.com/api/v2/alerts?x=hunter2", None),
        ("alertmanager", "https://am.example.com/api/v2/alerts", "token"),
        ("smtp", MAIL, None),
        ("smtp", MAIL.replace("smtps", "smtp"), "user:hunter2: x"),
    ],
)
def test_what_can_be_told_is_taken_and_shown_without_its_secrets(kind, address, secret):
    check(kind, address, secret, Reach())
    assert "hunter2" not in shown(kind, address)
    host = target(kind, address, Reach()).host
    assert host in shown(kind, address)


@pytest.mark.parametrize(
    ("kind", "address", "secret", "words"),
    [
        ("fax", "https://x.example.com/", None, "webhook, slack, teams"),
        ("webhook", "http://hooks.example.com/", None, "webhook_allow_http"),
        ("webhook", "https://10.0.0.1/", None, "webhook_allow"),
        ("webhook", MAIL, None, "https://"),
        ("webhook", "https://hooks.example.com/", "hunter2", "24 to 64 random bytes"),
        ("webhook", "https://hooks.example.com/", "whsec_QUFB", "24 to 64 random bytes"),
        ("webhook", "https://hooks.example.com/", "whsec_" + "A" * 33, "24 to 64 random bytes"),
        ("slack", "https://hooks.slack.com/", None, "whole address"),
        ("slack", SLACK, "hunter2", "leave it out"),
        ("teams", "https://contoso.webhook.office.com/webhookb2/x", None, "retired"),
        ("teams", TEAMS.replace("sig=", "x="), None, "sig="),
        ("pagerduty", PAGERDUTY, None, "integration key"),
        ("pagerduty", PAGERDUTY, "hunter2", "integration key"),
        ("pagerduty", "https://events.pagerduty.com/", KEY, "/v2/enqueue"),
        ("alertmanager", "https://am.example.com/", "to ken", "bearer token"),
        ("alertmanager", "https://am.example.com/", "x\r\nevil: y", "bearer token"),
        ("smtp", "https://mail.example.com", None, "smtps:// or smtp://"),
        ("smtp", "smtps://mail.example.com", None, "mail address"),
        ("smtp", "smtps://mail.example.com/x?from=a@b.co&to=c@d.co", None, "beside from and to"),
        ("smtp", MAIL + "&cc=eve@example.com", None, "beside from and to"),
        ("smtp", "smtps://mail.example.com?from=a@b.co&to=", None, "mail address"),
        ("smtp", "smtps://mail.example.com?from=a@b.co%0d%0aBcc:e@f.co&to=c@d.co", None, "mail address"),
        ("smtp", "smtps://mail.example.com?from=a@b.co&to=" + ",".join(["c@d.co"] * 21), None, "at most 20"),
        ("smtp", MAIL, "hunter2", "user:password"),
        ("smtp", MAIL, "us\ner:hunter2", "user:password"),
    ],
)
def test_what_cannot_be_told_is_refused_with_a_remedy_and_without_its_secrets(kind, address, secret, words):
    with pytest.raises(BadEndpointError) as refused:
        check(kind, address, secret, Reach())
    assert words in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_plus_sign_in_a_mail_address_is_one():
    assert letterbox(target("smtp", MAIL, Reach())) == ("m@example.com", ("ann@example.com", "bob+ops@example.com"))
    assert shown("smtp", MAIL) == "smtps://mail.example.com to ann@example.com, bob+ops@example.com"


@given(
    st.sampled_from(["webhook", "slack", "teams", "pagerduty", "alertmanager", "smtp"]),
    st.text(max_size=60) | st.text(max_size=40).map("https://".__add__) | st.text(max_size=40).map(MAIL.__add__),
    st.none() | st.text(max_size=40),
)
def test_whatever_is_written_it_is_taken_or_refused(kind, address, secret):
    try:
        check(kind, address, secret, Reach())
    except BadEndpointError:
        return
    assert target(kind, address, Reach()).host
    assert shown(kind, address).isprintable()
