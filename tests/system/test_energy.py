"""From a board's counter to the energy of an hour: the SDK's reader, its exporter, the spool, the loader, the jobs."""

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.resources import Resource
from sqlalchemy import select

from millicent.collector.loader import Loader
from millicent.collector.spool import Spool, SpoolReader
from millicent.sdk import energy
from millicent.warehouse import capacity
from millicent.warehouse.control import DEFAULT_TENANT
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.store import Warehouse
from millicent.warehouse.tables import deployment_hours

SECONDS = 15
WATTS = 700


class Kept(MetricExporter):
    """Keeps what would be sent."""

    def __init__(self):
        super().__init__()
        self.bodies = []

    def export(self, metrics_data, timeout_millis=10_000, **_):
        self.bodies.append(encode_metrics(metrics_data).SerializeToString())
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **_):
        """Nothing is open."""


@pytest.fixture
def warehouse(tmp_path):
    warehouse = Warehouse.embedded(tmp_path / "data", memory_limit="256MB")
    yield warehouse
    warehouse.close()


def test_an_hour_whose_boards_the_sdk_reads_is_measured(warehouse, tmp_path, fake_nvml_module, monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    nvml = fake_nvml_module.FakeNvml("b200")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    for board in nvml.devices:
        board["step_mj"] = WATTS * SECONDS * 1000
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)
    warehouse.control.declare(
        Deployment(
            name="oss-b200", model="gpt-oss-120b", accelerator="nvidia-b200", accelerator_count=2,
            profile={"kind": "rented", "usd_per_hour": "2.60"}, effective_from=hour,
        )
    )  # fmt: skip
    clock = iter(range(10**6))
    monkeypatch.setattr(energy.time, "time_ns", lambda: int(hour.timestamp() + SECONDS * (next(clock) // 2)) * 10**9)

    kept = Kept()
    reader = energy.EnergyReader(lambda: kept, Resource({"millicent.deployment": "oss-b200"}), every_s=3600)
    for _ in range(3600 // SECONDS):
        assert reader.flush(20)
    reader.stop()
    assert reader.join(20)

    async def arrive(spool):
        for body in kept.bodies:
            await spool.append(body, tenant=DEFAULT_TENANT, key_id="key-1", spans=2, signal="metrics")

    with Spool(tmp_path / "spool", reserve_bytes=0) as spool:
        asyncio.run(arrive(spool))
        loader = Loader(warehouse, SpoolReader(tmp_path / "spool"))
        while loader.step():
            pass
        balance = loader.balance()
    assert balance["received"] == balance["not_a_call"] == 2 * len(kept.bodies)
    assert ("not_a_call", "energy", 2 * len(kept.bodies)) in warehouse.reasons()

    capacity.refresh(warehouse.engine, warehouse.control, datetime.now(UTC))
    rows = warehouse.engine.read(select(deployment_hours)).to_pylist()
    (first,) = (row for row in rows if row["hour"] == hour.replace(tzinfo=None) or row["hour"] == hour)
    assert first["energy_source"] == "measured"
    # What the boards draw is brought up to all that their share of the site draws.
    chips = 2 * WATTS * 3600
    assert chips < float(first["joules"]) < 4 * chips
    assert {row["energy_source"] for row in rows if row is not first} == {"modelled"}
