"""Whoever may add an endpoint cannot make us talk to this host, its network or a metadata service."""

import http.client
import socket
import ssl
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from certificates import certified
from hypothesis import given
from hypothesis import strategies as st

from millicent.collector.webhooks.addresses import Answered, GuardedClient, NotSentError, Outgoing
from millicent.warehouse.reach import Address, ForbiddenAddressError, Reach, networks

PUBLIC = "93.184.215.14"
OPEN = Reach(allow_http=True)

FORMS = {
    # how it is written in an address: what it leads to where it leads anywhere
    "127.0.0.1": "127.0.0.1", "127.0.0.1.": "127.0.0.1", "127.1": "127.0.0.1", "127.0.1": "127.0.0.1",
    "127.255.255.254": "127.255.255.254", "2130706433": "127.0.0.1", "017700000001": "127.0.0.1",
    "0x7f000001": "127.0.0.1", "0X7F000001": "127.0.0.1", "0x7f.1": "127.0.0.1", "0x7f.0.0.0x1": "127.0.0.1",
    "0177.0.0.1": "127.0.0.1", "0177.0.0.01": "127.0.0.1", "127.0.0.1%00": "127.0.0.1", "127.000.000.001": "127.0.0.1",
    "%31%32%37.0.0.1": "127.0.0.1", "127。0。0。1": "127.0.0.1", "１２７.0.0.1": "127.0.0.1", "①②⑦.0.0.1": "127.0.0.1",
    "127.0.0.1\t": "127.0.0.1", "127.0.0.1\\": "127.0.0.1", "localhost": "127.0.0.1", "LOCALHOST": "127.0.0.1",
    "localhost.": "127.0.0.1", "localhost.localdomain": "127.0.0.1", "a.localhost": "127.0.0.1",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ": "127.0.0.1", "user@127.0.0.1": "127.0.0.1", "hooks.example.com@127.0.0.1": "127.0.0.1",
    "user:pass@localhost": "127.0.0.1", "127.0.0.1#@hooks.example.com": "127.0.0.1",
    "hooks.example.com\\@127.0.0.1": "127.0.0.1", "0": "0.0.0.0", "0.0.0.0": "0.0.0.0", "0x0": "0.0.0.0",
    "0.1.2.3": "0.1.2.3", "[::1]": "::1", "[0:0:0:0:0:0:0:1]": "::1", "[::0001]": "::1", "[::]": "::",
    "[::ffff:127.0.0.1]": "::ffff:127.0.0.1", "[::ffff:7f00:1]": "::ffff:127.0.0.1", "[::127.0.0.1]": "::127.0.0.1",
    "[::ffff:0:127.0.0.1]": "::ffff:0:7f00:1", "[64:ff9b::127.0.0.1]": "64:ff9b::7f00:1",
    "[64:ff9b::10.0.0.1]": "64:ff9b::a00:1", "[64:ff9b:1::a9fe:a9fe]": "64:ff9b:1::a9fe:a9fe",
    "[2002:7f00:1::]": "2002:7f00:1::", "[2002:a9fe:a9fe::1]": "2002:a9fe:a9fe::1",
    "[2001:0:7f00:1::1]": "2001:0:7f00:1::1",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]": "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "[2a00:1450::5efe:10.0.0.1]": "2a00:1450::5efe:a00:1", "[::1%lo]": "::1", "[fe80::1%25eth0]": "fe80::1",
    "[fe80::1]": "fe80::1", "[febf::1]": "febf::1", "[fec0::1]": "fec0::1",
    "[fc00::1]": "fc00::1", "[fd12::1]": "fd12::1",
    "[fd00:ec2::254]": "fd00:ec2::254", "[fd20:ce::254]": "fd20:ce::254", "[ff02::1]": "ff02::1",
    "[ff0e::1]": "ff0e::1", "[2001:db8::1]": "2001:db8::1", "[3fff::1]": "3fff::1", "[100::1]": "100::1",
    "[5f00::1]": "5f00::1", "169.254.169.254": "169.254.169.254", "169.254.170.2": "169.254.170.2",
    "2852039166": "169.254.169.254", "0xa9fea9fe": "169.254.169.254", "0xa9.0xfe.0xa9.0xfe": "169.254.169.254",
    "0251.0376.0251.0376": "169.254.169.254", "[::ffff:a9fe:a9fe]": "::ffff:a9fe:a9fe",
    "metadata.google.internal": "169.254.169.254", "metadata": "169.254.169.254", "100.100.100.200": "100.100.100.200",
    "168.63.129.16": "168.63.129.16", "192.0.0.192": "192.0.0.192", "10.0.0.1": "10.0.0.1", "10.1": "10.0.0.1",
    "172.16.0.1": "172.16.0.1", "172.31.255.255": "172.31.255.255", "192.168.1.1": "192.168.1.1",
    "3232235777": "192.168.1.1", "100.64.0.1": "100.64.0.1", "192.0.0.8": "192.0.0.8", "192.0.2.1": "192.0.2.1",
    "192.88.99.1": "192.88.99.1", "198.18.0.1": "198.18.0.1", "198.51.100.1": "198.51.100.1",
    "203.0.113.1": "203.0.113.1", "224.0.0.1": "224.0.0.1", "239.255.255.250": "239.255.255.250",
    "240.0.0.1": "240.0.0.1", "255.255.255.255": "255.255.255.255", "printer.local": "192.168.1.1",
    "db.lan": "192.168.1.1", "kubernetes.default.svc.cluster.local": "10.0.0.1", "kubernetes": "10.0.0.1",
    "1.168.192.in-addr.arpa": "192.168.1.1", "": "127.0.0.1", ".": "127.0.0.1", "..": "127.0.0.1", "-": "127.0.0.1",
    "a..example.com": "127.0.0.1", "256.256.256.256": "127.0.0.1", "1.2.3.4.5": "127.0.0.1", "[127.0.0.1]": "127.0.0.1",
    "[::1": "::1", "::1": "::1", "127.0.0.1,hooks.example.com": "127.0.0.1", "hooks.example.com 127.0.0.1": "127.0.0.1",
}  # fmt: skip


class Watch:
    """A listening socket of this host, and a note of every address that somebody wanted to connect to."""

    def __init__(self):
        self.wanted: list[str] = []
        self.listening = [socket.create_server(("127.0.0.1", 0))]
        self.port = self.listening[0].getsockname()[1]
        if socket.has_dualstack_ipv6():
            self.listening.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for one in self.listening:
            one.setblocking(False)

    def connect(self, address, port, timeout_s):
        self.wanted.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    def connections(self) -> int:
        found = 0
        for one in self.listening:
            while True:
                try:
                    one.accept()[0].close()
                except BlockingIOError:
                    break
                found += 1
        return found

    def close(self):
        for one in self.listening:
            one.close()


@pytest.fixture(scope="module")
def watched():
    with closing(Watch()) as watch:
        yield watch


@pytest.fixture
def watch(watched):
    watched.wanted.clear()
    assert watched.connections() == 0
    return watched


TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def guarded(reach: Reach, timeout_s: float, *, tls: ssl.SSLContext = TRUSTS_NOBODY, **seams) -> GuardedClient:
    return GuardedClient(reach, timeout_s, tls=tls, **seams)


def posted(url: str) -> Outgoing:
    return Outgoing("POST", url, {"content-type": "application/json"}, b"{}")


def resolves(*answers: list[str]):
    """A name server that answers differently each time, and then as it did last."""
    left = list(answers)
    return lambda host, port: left.pop(0) if len(left) > 1 else left[0]


def test_there_are_enough_forms_and_most_lead_to_the_watched_socket_when_nobody_guards(watch):
    assert len(FORMS) >= 100
    for host in ("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0.0.0.0", "localhost"):
        with closing(http.client.HTTPConnection(host, watch.port, timeout=5)) as connection:
            connection.connect()
        assert watch.connections() == 1, host


@pytest.mark.parametrize("form", FORMS, ids=ascii)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_form_of_a_forbidden_address_is_connected_to(watch, form, scheme):
    for where in (f"{scheme}://{form}:{watch.port}/hook", f"{scheme}://{form}/hook"):
        # Where a name is resolved at all, it leads to the watched socket.
        for client in (
            guarded(OPEN, 2, resolve=resolves([FORMS[form]])),
            guarded(OPEN, 2, resolve=resolves([FORMS[form]]), connect=watch.connect),
        ):
            with pytest.raises(ForbiddenAddressError):
                client.send(posted(where))
    assert watch.wanted == []
    assert watch.connections() == 0


@pytest.mark.parametrize("address", sorted(set(FORMS.values())))
def test_a_public_name_that_leads_to_a_forbidden_address_is_not_connected_to(watch, address):
    for answer in ([address], [PUBLIC, address], [address, PUBLIC], [PUBLIC, "2606:2800:21f:cb07::1", address]):
        client = guarded(OPEN, 2, resolve=resolves(answer), connect=watch.connect)
        with pytest.raises(ForbiddenAddressError, match=r"hooks\.example\.com"):
            client.send(posted(f"http://hooks.example.com:{watch.port}/"))
    assert watch.wanted == []


@pytest.mark.parametrize("address", sorted(set(FORMS.values())))
def test_a_name_that_leads_elsewhere_once_it_was_checked_gains_nothing(watch, address):
    client = guarded(OPEN, 2, resolve=resolves([PUBLIC], [address]), connect=watch.connect)
    with pytest.raises(NotSentError, match="refused"):
        client.send(posted(f"http://rebind.example.com:{watch.port}/"))
    assert watch.wanted == [PUBLIC]
    with pytest.raises(ForbiddenAddressError):
        client.send(posted(f"http://rebind.example.com:{watch.port}/"))
    assert watch.wanted == [PUBLIC]
    assert watch.connections() == 0


class Receiver(BaseHTTPRequestHandler):
    """Answers as the address asked: `/302?to` redirects, `/slow` and `/drip` take their time."""

    def do_POST(self):
        self.server.seen.append((self.path, dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
        status, _, to = self.path[1:].partition("?")
        if status == "slow":
            self.server.stop.wait(10)
        self.send_response(int(status) if status.isdecimal() else 200)
        if to:
            self.send_header("Location", to)
            self.send_header("Refresh", f"0; url={to}")
        self.end_headers()
        self.wfile.write(b"taken\r\nx-evil: \x1b[31m" + b"y" * 10_000)
        if status == "drip":
            self.wfile.flush()
            self.server.stop.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def receiver():
    """A server at 127.0.0.2, which the tests open, beside 127.0.0.1, which they do not."""
    server = ThreadingHTTPServer(("127.0.0.2", 0), Receiver)
    server.daemon_threads, server.stop, server.seen = True, threading.Event(), []
    server.handle_error = lambda *_: None
    running = threading.Thread(target=server.serve_forever, args=(0.01,))
    running.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()
    running.join()


BESIDE = Reach(networks(["127.0.0.2"]), allow_http=True)


@pytest.mark.parametrize("form", [form for form in FORMS if form.isascii() and form.isprintable()])
def test_a_redirect_to_a_forbidden_address_is_an_answer_and_not_followed(watch, receiver, form):
    client = guarded(BESIDE, 5)
    before = len(receiver.seen)
    for status in (301, 302, 303, 307, 308):
        where = f"http://127.0.0.2:{receiver.server_port}/{status}?http://{form}:{watch.port}/"
        if any(one in form for one in "\\#[] "):
            where = where.partition("?")[0] + f"?http://127.0.0.1:{watch.port}/"
        assert client.send(posted(where)).status == status
    assert len(receiver.seen) == before + 5
    assert watch.connections() == 0


def test_no_proxy_of_the_environment_is_asked(watch, receiver, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{watch.port}")
    assert guarded(BESIDE, 5).send(posted(f"http://127.0.0.2:{receiver.server_port}/200")).status == 200
    assert watch.connections() == 0


def test_what_no_endpoint_may_be_stays_shut_however_much_is_allowed(watch):
    wide = guarded(Reach(networks(["0.0.0.0/0", "::/0"]), allow_http=True), 2, connect=watch.connect)
    never = (
        "169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::169.254.169.254]", "[2002:a9fe:a9fe::]",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "[fe80::1]", "0.0.0.0", "[::]",
        "224.0.0.1", "[ff02::1]", "255.255.255.255",
    )  # fmt: skip
    for form in never:
        with pytest.raises(ForbiddenAddressError, match="which no endpoint may be"):
            wide.send(posted(f"http://{form}/"))
    assert watch.wanted == []
    for form in ("10.0.0.1", "[::1]", "[fd12::1]", "127.0.0.1"):
        with pytest.raises(NotSentError):
            wide.send(posted(f"http://{form}/"))
    assert watch.wanted == ["10.0.0.1", "::1", "fd12::1", "127.0.0.1"]


def test_one_allowed_network_opens_no_other(watch):
    client = guarded(Reach(networks(["10.1.0.0/16"]), allow_http=True), 2,
                           resolve=resolves(["10.1.2.3"], ["10.1.2.3", "10.2.0.1"]), connect=watch.connect)  # fmt: skip
    with pytest.raises(NotSentError):
        client.send(posted("http://alertmanager.monitoring.svc.cluster.local/"))
    with pytest.raises(ForbiddenAddressError, match=r"10\.2\.0\.1.*webhook_allow"):
        client.send(posted("http://alertmanager.monitoring.svc.cluster.local/"))
    assert watch.wanted == ["10.1.2.3"]


def test_a_name_of_a_private_network_is_not_believed_to_be_public(watch):
    client = guarded(Reach(networks(["10.1.0.0/16"]), allow_http=True), 2, resolve=resolves([PUBLIC]),
                           connect=watch.connect)  # fmt: skip
    with pytest.raises(ForbiddenAddressError, match="private network"):
        client.send(posted("http://printer.local/"))
    assert watch.wanted == []


def is_refused(reach: Reach, address: Address) -> bool:
    try:
        reach.check(address, str(address))
    except ForbiddenAddressError:
        return True
    return False


NUMBERS = st.integers(2, 2**32 - 1) | st.sampled_from(
    [int(IPv4Address(one)) for one in sorted(set(FORMS.values())) if ":" not in one]
)
"""IPv4 addresses, but for 0.0.0.1: ::1 is no disguise of it."""


@given(NUMBERS, st.integers(0, 2**64 - 1))
def test_what_is_refused_as_ipv4_is_refused_inside_ipv6(number, rest):
    inside = IPv4Address(number)
    if not is_refused(OPEN, inside):
        assert inside.is_global
    for base, at in (
        ("::ffff:0:0", 0),
        ("::", 0),
        ("::ffff:0:0:0", 0),
        ("64:ff9b::", 0),
        ("2002::", 80),
        ("2001::", 64),
    ):
        outside = IPv6Address(int(IPv6Address(base)) | number << at | (rest & 0xFFFF if at else 0))
        assert is_refused(OPEN, outside)
        if is_refused(Reach(networks(["0.0.0.0/0"])), inside):
            assert is_refused(Reach(networks(["::/0"])), outside), "what is never allowed cannot be disguised"


@given(st.integers(0, 2**128 - 1))
def test_of_ipv6_only_global_unicast_is_public(number):
    address = IPv6Address(number)
    if not is_refused(OPEN, address):
        assert address.is_global
        assert number >> 125 == 1


@given(st.text(max_size=60))
def test_whatever_is_written_it_is_refused_or_one_address_that_can_be_sent_to(text):
    for url in (text, f"https://{text}", f"https://hooks.example.com/{text}"):
        try:
            found = OPEN.target(url)
        except ForbiddenAddressError:
            continue
        assert found.path.startswith("/")
        assert (found.host + found.path).isascii()
        assert not set(found.host) & set("/@\\#? ")


# ---- answers


def test_what_comes_back_is_read_in_part_and_is_one_line_of_text(receiver):
    came = guarded(BESIDE, 5).send(posted(f"http://127.0.0.2:{receiver.server_port}/200"))
    assert came.status == 200
    assert came.text.startswith("taken  x-evil:  [31myyy")
    assert len(came.text) == 500
    path, headers, body = receiver.seen[-1]
    assert (path, body) == ("/200", b"{}")
    assert headers == {"host": f"127.0.0.2:{receiver.server_port}", "content-length": "2", "connection": "close",
                       "content-type": "application/json"}  # fmt: skip


def test_who_does_not_answer_is_left_in_time(receiver):
    with pytest.raises(NotSentError, match="in time"):
        guarded(BESIDE, 0.2).send(posted(f"http://127.0.0.2:{receiver.server_port}/slow"))


def test_a_status_counts_even_if_its_body_never_ends(receiver):
    came = guarded(BESIDE, 0.5).send(posted(f"http://127.0.0.2:{receiver.server_port}/drip"))
    assert isinstance(came, Answered)
    assert came.status == 200


def test_an_answer_that_comes_byte_by_byte_does_not_outlast_the_time():
    with socket.create_server(("127.0.0.2", 0)) as listening:
        stop = threading.Event()

        def drip():
            with listening.accept()[0] as line:
                while not stop.is_set():
                    try:
                        line.sendall(b"H")
                    except OSError:
                        return
                    stop.wait(0.02)

        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises(NotSentError, match="in time"):
            guarded(BESIDE, 0.3).send(posted(f"http://127.0.0.2:{listening.getsockname()[1]}/"))
        stop.set()
        dripping.join()


def test_a_name_server_that_does_not_answer_is_left_in_time():
    stop = threading.Event()

    def resolve(host, port):
        stop.wait(10)
        return [PUBLIC]

    with pytest.raises(NotSentError, match="not resolved"):
        guarded(OPEN, 0.1, resolve=resolve).send(posted("http://hooks.example.com/"))
    stop.set()


def test_an_address_where_nobody_is_gives_way_to_the_next(receiver):
    client = guarded(Reach(networks(["127.0.0.0/8"]), allow_http=True), 5,
                           resolve=resolves(["127.0.0.3", "127.0.0.2"]))  # fmt: skip
    assert client.send(posted(f"http://hooks.test:{receiver.server_port}/200")).status == 200


def test_headers_cannot_be_smuggled(receiver):
    before = len(receiver.seen)
    evil = Outgoing("POST", f"http://127.0.0.2:{receiver.server_port}/200", {"x": "a\r\nx-evil: b"}, b"{}")
    with pytest.raises(NotSentError):
        guarded(BESIDE, 5).send(evil)
    assert len(receiver.seen) == before


# ---- TLS


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    """A TLS server at 127.0.0.2 with a certificate for hooks.example.com, and who trusts it."""
    theirs, trusting = certified("hooks.example.com", tmp_path_factory.mktemp("tls"))
    server = ThreadingHTTPServer(("127.0.0.2", 0), Receiver)
    server.daemon_threads, server.stop, server.seen, server.asked_for = True, threading.Event(), [], []
    theirs.sni_callback = lambda line, asked, context: server.asked_for.append(asked)
    server.socket = theirs.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None
    running = threading.Thread(target=server.serve_forever, args=(0.01,))
    running.start()
    yield server, trusting
    server.shutdown()
    server.server_close()
    running.join()


def test_the_certificate_is_of_the_name_though_the_address_is_connected_to(secured):
    server, trusted = secured
    client = guarded(BESIDE, 5, tls=trusted, resolve=resolves(["127.0.0.2"]))
    assert client.send(posted(f"https://hooks.example.com:{server.server_port}/200")).status == 200
    assert server.asked_for[-1] == "hooks.example.com"
    assert server.seen[-1][1]["host"] == f"hooks.example.com:{server.server_port}"


@pytest.mark.parametrize("name", ["other.example.com", "127.0.0.2"])
def test_a_certificate_of_another_name_is_not_taken(secured, name):
    server, trusted = secured
    before = len(server.seen)
    client = guarded(BESIDE, 5, tls=trusted, resolve=resolves(["127.0.0.2"]))
    with pytest.raises(NotSentError, match="certificate"):
        client.send(posted(f"https://{name}:{server.server_port}/200"))
    assert len(server.seen) == before


def test_a_certificate_of_nobody_is_not_taken(secured):
    server, _ = secured
    client = GuardedClient(BESIDE, 5, resolve=resolves(["127.0.0.2"]))
    with pytest.raises(NotSentError, match="certificate"):
        client.send(posted(f"https://hooks.example.com:{server.server_port}/200"))


# ---- words


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://hooks.example.com/", "webhook_allow_http"),
        ("ftp://hooks.example.com/", "https:// or http://"),
        ("https://hooks.example.com:0/", "1 to 65535"),
        ("https://hooks.example.com:65536/", "1 to 65535"),
        ("https://10.0.0.1/", "webhook_allow"),
        ("https://printer.local/", "webhook_allow"),
        ("https://u:hunter2@hooks.example.com/", "without user"),
        ("https://hooks.example.com/" + "a" * 3000, "longer than"),
        ("https://hooks.example.com/a b?token=hunter2", "blanks"),
        ("hooks.example.com/hunter2", "no address"),
    ],
)
def test_a_refused_address_teaches_and_keeps_its_secrets(url, words):
    with pytest.raises(ForbiddenAddressError, match=words) as refused:
        Reach().target(url)
    assert "hunter2" not in str(refused.value)


def test_public_addresses_are_taken_as_they_are_written():
    for url, host, port, path in (
        ("https://hooks.slack.com/services/T/B/x", "hooks.slack.com", 443, "/services/T/B/x"),
        ("HTTPS://Hooks.Example.com:8443?a=%2F&b=c'd", "hooks.example.com", 8443, "/?a=%2F&b=c'd"),
        ("https://[2606:2800:21f:cb07:0:0:0:1]/", "2606:2800:21f:cb07::1", 443, "/"),
        ("https://93.184.215.14/x", "93.184.215.14", 443, "/x"),
        ("https://xn--bcher-kva.example.com/", "xn--bcher-kva.example.com", 443, "/"),
    ):
        found = Reach().target(url)
        assert (found.host, found.port, found.path) == (host, port, path)
    assert str(ip_address(PUBLIC)) == PUBLIC
