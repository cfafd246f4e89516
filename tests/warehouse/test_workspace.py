"""What a workspace prefers: kept per tenant, audited, and refused where it could not work."""

import pytest
from sqlalchemy import text

from millicent.warehouse.control import Control
from millicent.warehouse.workspace import Workspace, prefer, preferences


def test_preferences_are_kept_and_the_audit_log_tells_what_was_before(tmp_path):
    control = Control(tmp_path)
    assert preferences(control, "default") == Workspace()
    first = Workspace(
        time_zone="Asia/Kolkata", currency="EUR", fiscal_month=4, trace_viewer="https://t.example/{trace_id}"
    )
    prefer(control, "default", first, "ann")
    prefer(control, "default", Workspace(currency="GBP"), "bob")
    control.close()
    again = Control(tmp_path)
    assert preferences(again, "default") == Workspace(currency="GBP")
    with again.begin() as connection:
        told = connection.execute(text("SELECT actor, detail FROM audit WHERE action = 'workspace.prefer'")).all()
    assert [actor for actor, _ in told] == ["ann", "bob"]
    assert '"currency": "EUR"' in told[1][1]
    again.close()


def test_nothing_is_kept_for_a_tenant_that_is_not(tmp_path):
    control = Control(tmp_path)
    with pytest.raises(ValueError, match="tenant 'nobody' is unknown"):
        prefer(control, "nobody", Workspace(), "ann")
    control.close()


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"time_zone": "Mars/Olympus"}, "IANA name"),
        ({"time_zone": "../../etc/passwd"}, "IANA name"),
        ({"currency": "euro"}, "three capital letters"),
        ({"fiscal_month": 13}, "no month"),
        ({"trace_viewer": "javascript:alert({trace_id})"}, "no web address"),
        ({"trace_viewer": "https://{trace_id}.example/"}, "path or query"),
        ({"trace_viewer": "https://t.example/"}, "path or query"),
        ({"trace_viewer": "https://t.example/{trace_id}" + "x" * 2000}, "at most"),
    ],
)
def test_what_could_not_work_is_refused(told, why):
    with pytest.raises(ValueError, match=why):
        Workspace(**told)


def test_a_trace_link_carries_the_ids_alone():
    viewer = Workspace(trace_viewer="https://t.example/trace/{trace_id}?span={span_id}")
    assert viewer.trace_link("ab" * 16, "cd" * 8) == f"https://t.example/trace/{'ab' * 16}?span={'cd' * 8}"
    assert Workspace().trace_link("ab", "cd") is None
