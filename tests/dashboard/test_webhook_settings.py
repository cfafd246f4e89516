"""Networks that alerts may be sent into, from the file and the environment."""

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from millicent.dashboard.settings import BadSettingsError, load, told
from millicent.warehouse.reach import Reach


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_but_the_public_internet_over_tls_unless_told():
    assert load().reach == Reach()


def test_networks_come_from_the_file_or_with_commas_from_the_environment(elsewhere, monkeypatch):
    (elsewhere / "millicent.toml").write_text('webhook_allow = ["10.0.0.0/8", "fd00::/8"]\nwebhook_allow_http = true\n')
    assert load().reach == Reach((ip_network("10.0.0.0/8"), ip_network("fd00::/8")), allow_http=True)
    monkeypatch.setenv("MILLICENT_WEBHOOK_ALLOW", "192.168.7.9, 10.1.0.0/16")
    assert load().reach.allow == (ip_network("192.168.7.9"), ip_network("10.1.0.0/16"))
    shown = {one.name: (one.value, one.source) for one in told()}
    assert shown["webhook_allow"] == ("192.168.7.9/32, 10.1.0.0/16", "environment")


@pytest.mark.parametrize("wrong", ["10.1.2.3/8", "everything", "http://10.0.0.1", "fe80::1%eth0/64"])
def test_what_is_no_network_is_refused_with_the_way_to_write_one(monkeypatch, wrong):
    monkeypatch.setenv("MILLICENT_WEBHOOK_ALLOW", wrong)
    with pytest.raises(ValidationError, match=r"is no network.*10\.1\.0\.0/16"):
        load()


@pytest.mark.parametrize("wrong", ["webhook_allow = 3", 'webhook_allow = {a = "10.0.0.0/8"}'])
def test_what_is_no_list_is_refused(elsewhere, wrong):
    (elsewhere / "millicent.toml").write_text(wrong)
    with pytest.raises(ValidationError, match="list of networks"):
        load()


def test_links_lead_to_where_people_open_the_pages():
    assert load(port=8051).address == "http://127.0.0.1:8051"
    assert load(host="::1", port=1).address == "http://[::1]:1"
    assert load(host="0.0.0.0", behind_proxy=True).address == "", "nobody told how they are reached"
    told_so = load(host="0.0.0.0", behind_proxy=True, public_url="https://costs.example.com/millicent/")
    assert told_so.address == "https://costs.example.com/millicent"


@pytest.mark.parametrize(
    "wrong", ["costs.example.com", "javascript:alert(1)", "https://x.example.com/?a=b", "https://"]
)
def test_what_is_no_address_of_pages_is_refused(wrong):
    with pytest.raises(BadSettingsError, match="public_url"):
        load(public_url=wrong)
