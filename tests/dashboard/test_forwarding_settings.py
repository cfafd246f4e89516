"""Where spans are sent on to: what is taken, what is refused, and that header values are shown to nobody."""

import pytest

from millicent.dashboard.settings import BadSettingsError, load, told


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)


def values(settings):
    return {name: value.get_secret_value() for name, value in settings.forward_headers.items()}


def test_nothing_is_sent_on_unless_an_endpoint_is_named():
    settings = load()
    assert (settings.forward_endpoint, settings.forward_headers) == (None, {})


@pytest.mark.parametrize(
    ("written", "headers"),
    [
        ("authorization=Bearer%20a%3Db,x-scope-orgid=acme", {"authorization": "Bearer a=b", "x-scope-orgid": "acme"}),
        ("api-key=k, ", {"api-key": "k"}),
        ("", {}),
    ],
)
def test_headers_come_from_the_environment_as_opentelemetry_writes_them(monkeypatch, written, headers):
    monkeypatch.setenv("MILLICENT_FORWARD_ENDPOINT", "https://collector.example.com:4318")
    monkeypatch.setenv("MILLICENT_FORWARD_HEADERS", written)
    assert values(load()) == headers


def test_headers_come_from_a_table_in_the_file(tmp_path):
    (tmp_path / "millicent.toml").write_text(
        'forward_endpoint = "https://c.example.com"\n[forward_headers]\nauthorization = "Bearer s3cret"\n'
    )
    assert values(load()) == {"authorization": "Bearer s3cret"}


def test_the_values_of_headers_are_shown_to_nobody(monkeypatch):
    monkeypatch.setenv("MILLICENT_FORWARD_HEADERS", "authorization=s3cret")
    shown = [*map(str, told()), repr(load()), str(load())]
    assert not [text for text in shown if "s3cret" in text]
    assert any("authorization" in text for text in shown)


@pytest.mark.parametrize(
    "endpoint",
    ["collector.example.com:4318", "ftp://c.example.com", "https://", "http://c:port", "http://c.example.com/?a=b", ""],
)
def test_an_endpoint_that_cannot_be_posted_to_is_refused(endpoint):
    with pytest.raises(BadSettingsError, match="is no URL of an OTLP/HTTP receiver: write it as"):
        load(forward_endpoint=endpoint)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("port", [4318, 8050])
def test_spans_never_go_round_in_a_circle(host, port):
    with pytest.raises(BadSettingsError, match="in a circle"):
        load(forward_endpoint=f"http://{host}:{port}/v1/traces")
    load(forward_endpoint=f"http://{host}:{port}", otlp_port=14318, port=18050)


@pytest.mark.parametrize(
    "headers", [{"a b": "x"}, {"": "x"}, {"authorization": "x\r\ny: z"}, {"authorization": "schön"}]
)
def test_what_is_no_header_is_refused(headers):
    with pytest.raises(BadSettingsError, match="is no header"):
        load(forward_endpoint="https://c.example.com", forward_headers=headers)
