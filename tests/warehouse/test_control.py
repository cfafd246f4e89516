"""Keys open what they say while they live, deployments are what can be costed, and no file holds a secret."""

import os
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from sqlalchemy import select, text

from millicent.warehouse import control as control_module
from millicent.warehouse.control import Control, Deployment, audit, tenants

TEN = datetime(2026, 3, 4, 10, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SCOPES = ("ingest", "read", "setup")


@pytest.fixture
def control(tmp_path):
    opened = Control(tmp_path / "data")
    with opened._engine.begin() as connection:  # nothing makes tenants yet, but everything keeps them apart
        connection.execute(tenants.insert(), [{"id": "rival", "name": "Rival"}])
    yield opened
    opened.close()


@pytest.fixture
def clock(monkeypatch):
    """The control plane's clock: set `clock.now`."""

    class Clock(datetime):
        at = TEN

        @classmethod
        def now(cls, tz=None):
            return cls.at.astimezone(tz)

    monkeypatch.setattr(control_module, "datetime", Clock)
    return Clock


def actions(control) -> list[tuple[str, str]]:
    with control._engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(audit.c.tenant, audit.c.action).order_by(audit.c.id))]


# Keys.


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_its_scope_and_no_other(control, scope):
    key = control.create_key(scope, "laptop")
    assert key.startswith(f"mk_{scope}_")
    assert control.check(key, *SCOPES).scope == scope
    found = control.check(key, scope)
    assert (found.tenant, found.name, found.revoked_at) == ("default", "laptop", None)
    assert control.check(key, *(other for other in SCOPES if other != scope)) is None
    assert control.check(key) is None


def test_a_key_belongs_to_one_tenant(control):
    key = control.create_key("ingest", "theirs", tenant="rival")
    assert control.check(key, "ingest").tenant == "rival"
    (theirs,) = control.keys("rival")
    assert control.keys() == []
    assert not control.revoke(theirs.id)
    assert control.check(key, "ingest")
    assert control.revoke(theirs.id, "rival")


def test_every_change_of_a_key_does_not_open(control):
    key = control.create_key("ingest", "laptop")
    for at in range(len(key)):
        other = "0" if key[at] != "0" else "1"
        assert control.check(key[:at] + other + key[at + 1 :], *SCOPES) is None
    parts = key.split("_")
    for wrong in ("", "mk", key[:-1], key + "0", key.upper(), f" {key}", f"{key}\0", "_".join(parts[:3]), "🙂",
                  "mk_ingest_%_x", f"mk_ingest_{parts[2]}_", f"mk_ingest_' OR '1'='1_{parts[3]}"):  # fmt: skip
        assert control.check(wrong, *SCOPES) is None


def test_two_keys_are_live_during_a_rotation_and_revoking_one_ends_it_alone(control):
    old, new = control.create_key("ingest", "old"), control.create_key("ingest", "new")
    assert control.check(old, "ingest")
    assert control.check(new, "ingest")
    assert control.revoke(control.check(old, "ingest").id)
    assert control.check(old, "ingest") is None
    assert control.check(new, "ingest")
    assert [(one.name, one.revoked_at is not None) for one in control.keys()] == [("old", True), ("new", False)]
    assert not control.revoke("no-such-key")


def test_revoking_again_does_not_move_the_end(control, clock):
    key = control.check(control.create_key("ingest", "laptop"), "ingest")
    control.revoke(key.id)
    clock.at = TEN + DAY
    assert control.revoke(key.id)
    assert control.keys()[0].revoked_at == TEN


@pytest.mark.parametrize(("scope", "life"), [("ingest", 365 * DAY), ("read", 365 * DAY), ("setup", 7 * DAY)])
def test_a_key_expires_when_its_life_is_over(control, clock, scope, life):
    key = control.create_key(scope, "laptop")
    assert control.keys()[0].expires_at == TEN + life
    clock.at = TEN + life - timedelta(microseconds=1)
    assert control.check(key, scope)
    clock.at = TEN + life
    assert control.check(key, scope) is None


@pytest.mark.parametrize(
    ("scope", "tenant", "value", "remedy"),
    [("admin", "default", "'admin'", "ingest, read, setup"), ("ingest", "nobody", "'nobody'", "default")],
)
def test_a_key_that_cannot_be_made_says_why(control, scope, tenant, value, remedy):
    with pytest.raises(ValueError, match=value) as refused:
        control.create_key(scope, "laptop", tenant)
    assert remedy in str(refused.value)
    assert control.keys() == []


# Sessions.


def test_a_setup_token_opens_exactly_one_session(control):
    token = control.create_key("setup", "first run", tenant="rival")
    session = control.open_session(token)
    assert session
    assert control.session_tenant(session) == "rival"
    assert control.open_session(token) is None
    assert control.check(token, "setup") is None
    assert control.session_tenant(token) is None
    for wrong in ("", session[:-1], session.upper() + "0", "' OR '1'='1"):
        assert control.session_tenant(wrong) is None


def test_no_other_key_and_no_dead_token_opens_a_session(control, clock):
    assert control.open_session(control.create_key("ingest", "x")) is None
    assert control.open_session(control.create_key("read", "x")) is None
    token = control.create_key("setup", "x")
    clock.at = TEN + 7 * DAY
    assert control.open_session(token) is None


def test_a_token_that_two_people_use_at_once_opens_one_session(control, monkeypatch):
    token = control.create_key("setup", "first run")
    seen = control.check(token, "setup")
    first = control.open_session(token)
    monkeypatch.setattr(control, "check", lambda *_: seen)  # the second looked before the first was done
    assert first
    assert control.open_session(token) is None


def test_a_session_ends_after_a_day(control, clock):
    session = control.open_session(control.create_key("setup", "x"))
    clock.at = TEN + DAY - timedelta(seconds=1)
    assert control.session_tenant(session) == "default"
    clock.at = TEN + DAY
    assert control.session_tenant(session) is None


# At rest.


def test_no_secret_is_in_any_file_and_no_file_is_for_others(control, tmp_path):
    old = os.umask(0)
    try:
        fresh = Control(tmp_path / "open" / "to all")
    finally:
        os.umask(old)
    token = fresh.create_key("setup", "first run")
    secrets = [
        fresh.create_key("ingest", "laptop"),
        fresh.create_key("read", "laptop"),
        token,
        fresh.open_session(token),
    ]
    files = list((tmp_path / "open" / "to all").iterdir())
    assert {"control.db", "control.db-wal", "pepper"} <= {file.name for file in files} <= {
        "control.db", "control.db-wal", "control.db-shm", "pepper"
    }  # fmt: skip
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600, file.name
        content = file.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content
            assert secret.split("_")[-1][:48].encode() not in content
            assert bytes.fromhex(secret.split("_")[-1][:48]) not in content
    assert (tmp_path / "open" / "to all").stat().st_mode & 0o777 == 0o700
    fresh.close()


def test_digests_of_one_installation_open_nothing_in_another(control, tmp_path):
    key = control.create_key("ingest", "laptop")
    control.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "control.db").write_bytes((tmp_path / "data" / "control.db").read_bytes())
    other = Control(copy)
    assert [found.name for found in other.keys()] == ["laptop"]
    assert other.check(key, "ingest") is None
    other.close()


def test_opening_again_keeps_everything_and_migrates_nothing(control, tmp_path):
    key = control.create_key("ingest", "laptop")
    for _ in range(2):
        again = Control(tmp_path / "data")
        assert again.check(key, "ingest")
        with again._engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0007"]
            assert connection.execute(select(tenants.c.id)).scalars().all() == ["default", "rival"]
        again.close()


def test_the_tables_that_code_knows_are_the_tables_that_migrations_made(control):
    with control._engine.connect() as connection:
        for table in control_module.metadata.tables.values():
            made = connection.execute(text(f"PRAGMA table_info({table.name})")).mappings().all()
            assert {row["name"] for row in made} == {column.name for column in table.columns}


def test_every_change_is_audited_and_the_audit_knows_no_secret(control):
    key = control.create_key("ingest", "laptop", actor="ann")
    token = control.create_key("setup", "x", tenant="rival")
    session = control.open_session(token)
    control.revoke(control.keys()[0].id)
    control.declare(rack(), actor="ann")
    assert actions(control) == [
        ("default", "key.create"), ("rival", "key.create"), ("rival", "session.open"), ("default", "key.revoke"),
        ("default", "deployment.declare"),
    ]  # fmt: skip
    with control._engine.connect() as connection:
        written = repr(connection.execute(select(audit)).all())
    assert "'ann'" in written
    assert not any(secret in written for secret in (key, token, session))


# Deployments.


def rack(**told) -> Deployment:
    return Deployment(**{
        "name": "rack", "model": "qwen3-8b", "accelerator": "nvidia-h100-sxm", "accelerator_count": 2,
        "effective_from": TEN, "profile": {"kind": "rented", "usd_per_hour": "1.89"}, **told,
    })  # fmt: skip


def periods(control, tenant=None) -> list[tuple]:
    return [(one.name, one.effective_from, one.effective_to) for _, one in control.deployments(tenant)]


def test_a_deployment_comes_back_as_it_was_declared(control):
    full = rack(
        effective_to=TEN + DAY, engine="vllm", precision="fp8", region="us-va", environment="production",
        endpoints=("10.0.0.1", "llm.internal:8000"), power={"pue": "1.2"},
        profile={"kind": "owned", "capex_usd": "30000", "depreciation": "straight_line",
                 "hosting_includes_power": "true"},
    )  # fmt: skip
    control.declare(full)
    assert control.deployments() == [("default", full)]
    profile = control.deployments()[0][1].cost_profile()
    assert (profile.capex_usd, profile.hosting_includes_power) == (Decimal(30000), True)
    assert full.electricity().pue == Decimal("1.2")


def test_a_new_period_ends_the_open_one_of_that_name_and_tenant_only(control):
    control.declare(rack())
    control.declare(rack(), tenant="rival")
    control.declare(rack(name="other"))
    control.declare(rack(effective_from=TEN + DAY, accelerator_count=4))
    assert periods(control, "default") == [
        ("other", TEN, None), ("rack", TEN, TEN + DAY), ("rack", TEN + DAY, None)
    ]  # fmt: skip
    assert periods(control, "rival") == [("rack", TEN, None)]
    assert [tenant for tenant, _ in control.deployments()] == ["default"] * 3 + ["rival"]


@pytest.mark.parametrize(
    ("start", "end", "meets"),
    [(0, None, True), (-5, None, True), (0, 1, True), (-5, 1, True), (-5, 0, False), (25, 30, True), (24, 40, True),
     (20, 24, False), (21, 25, True), (40, None, False), (34, 40, False)],
)  # fmt: skip
def test_periods_of_a_deployment_never_overlap(control, start, end, meets):
    control.declare(rack(effective_from=TEN + 24 * HOUR, effective_to=TEN + 34 * HOUR))
    control.declare(rack(effective_from=TEN, effective_to=TEN + 10 * HOUR))
    before = periods(control)
    until = None if end is None else TEN + end * HOUR
    new = rack(effective_from=TEN + start * HOUR, effective_to=until, accelerator_count=4)
    if not meets:
        control.declare(new)
        assert len(periods(control)) == 3
        return
    with pytest.raises(
        ValueError, match=r"'rack': its period from .* overlaps that from .*: start after that one, or end"
    ):
        control.declare(new)
    assert periods(control) == before


def test_an_open_period_can_be_preceded_and_ended_but_not_replaced(control):
    control.declare(rack())
    with pytest.raises(ValueError, match="overlaps that from 2026-03-04 10:00 UTC to now on"):
        control.declare(rack(accelerator_count=4))
    control.declare(rack(effective_from=TEN - DAY, effective_to=TEN))
    assert periods(control) == [("rack", TEN - DAY, TEN), ("rack", TEN, None)]


def test_bounds_are_whole_hours_of_utc_whatever_zone_they_are_written_in(control):
    india, nepal = timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=5, minutes=45))
    control.declare(rack(effective_from=datetime(2026, 3, 4, 15, 30, tzinfo=india)))
    assert periods(control) == [("rack", TEN, None)]
    for odd in (
        datetime(2026, 3, 4, 15, tzinfo=india),
        datetime(2026, 3, 4, 15, tzinfo=nepal),
        TEN + timedelta(seconds=1),
    ):
        with pytest.raises(ValueError, match="not on a whole hour of UTC"):
            rack(effective_from=odd)
    with pytest.raises(ValueError, match="not on a whole hour of UTC"):
        rack(effective_to=TEN + timedelta(minutes=30))


@pytest.mark.parametrize(
    ("told", "value", "remedy"),
    [
        ({"effective_from": TEN.replace(tzinfo=None)}, "2026-03-04T10:00:00", "add Z for UTC or an offset"),
        ({"accelerator": "h100"}, "'h100'", "write 'nvidia-h100-sxm'"),
        ({"accelerator": "abacus"}, "abacus", ""),
        ({"profile": {}}, "None", "write owned, rented, reserved, spot, preset"),
        ({"profile": {"kind": "leased"}}, "'leased'", "write owned, rented, reserved, spot, preset"),
        ({"profile": {"kind": "rented"}}, "Rented", "usd_per_hour"),
        ({"profile": {"kind": "rented", "usd_per_hour": "cheap"}}, "'cheap'", "such as 0.08"),
        ({"profile": {"kind": "rented", "usd_per_hour": "-1"}}, "'-1'", "0 or more"),
        ({"profile": {"kind": "rented", "usd_per_hour": "NaN"}}, "'NaN'", "0 or more"),
        ({"profile": {"kind": "rented", "usd_per_hour": "Infinity"}}, "'Infinity'", "0 or more"),
        (
            {"profile": {"kind": "rented", "usd_per_hour": "1", "color": "red"}},
            "'color'",
            "includes_power, usd_per_hour",
        ),
        ({"profile": {"kind": "rented", "usd_per_hour": "1", "includes_power": "yes"}}, "'yes'", "true, false"),
        ({"profile": {"kind": "preset", "name": "ix-1999"}}, "'ix-1999'", "ix-2026-07"),
        ({"power": {"watts": "3"}}, "'watts'", "it_kw"),
        ({"power": {"pue": "-1"}}, "'-1'", "0 or more"),
    ],
)
def test_a_setting_that_cannot_be_says_what_it_was_and_what_it_may_be(control, told, value, remedy):
    with pytest.raises((ValueError, LookupError)) as refused:
        control.declare(rack(**told))
    assert value in str(refused.value)
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"accelerator_count": 0}, "give 1 or more"),
        ({"region": "atlantis"}, "atlantis"),
        ({"profile": {"kind": "rented", "usd_per_hour": "1", "includes_power": "false"}}, "set tariff_usd_per_kwh"),
        ({"profile": {"kind": "owned", "life_years": "0"}}, "life is positive"),
        ({"profile": {"kind": "preset", "name": "ix-2025"}, "accelerator": "google-tpu-v7"}, "declare your own"),
        ({"effective_to": TEN}, "not after"),
        ({"effective_to": TEN - HOUR}, "not after"),
    ],
)
def test_hours_that_could_never_be_costed_are_refused_when_declared(control, told, why):
    with pytest.raises((ValueError, LookupError), match=why):
        control.declare(rack(**told))
    assert control.deployments() == []
    assert actions(control) == []


def test_a_tenant_that_does_not_exist_cannot_have_deployments(control):
    with pytest.raises(ValueError, match="tenant 'nobody' is unknown: write default, rival"):
        control.declare(rack(), tenant="nobody")
