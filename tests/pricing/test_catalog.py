import csv
from dataclasses import fields
from decimal import Decimal
from importlib.resources import files

import pytest

from millicent.pricing import catalog
from millicent.pricing.catalog import Accelerator, Engine, Pue, Region

TABLES = {
    Accelerator: catalog.accelerators(),
    Region: catalog.regions(),
    Pue: catalog.pues(),
    Engine: catalog.engines(),
}


def raw_rows(row_type):
    text = (files("millicent.pricing.catalog") / row_type.TABLE).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize("row_type", TABLES, ids=lambda row_type: row_type.__name__)
def test_every_row_is_read_with_its_own_id(row_type):
    rows = TABLES[row_type]
    assert len(rows) == len(raw_rows(row_type)) > 10
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.parametrize("row_type", TABLES, ids=lambda row_type: row_type.__name__)
def test_a_blank_stays_blank_and_a_number_keeps_its_digits(row_type):
    for row, raw in zip(TABLES[row_type], raw_rows(row_type), strict=True):
        for field in fields(row_type):
            value = getattr(row, field.name)
            assert (value in (None, ())) == (not raw[field.name]), (row.id, field.name)
            if isinstance(value, Decimal):
                assert str(value) == raw[field.name]
                assert value >= 0


def test_every_number_of_every_table_parses():
    numeric = ("_w", "_kw", "_usd", "_gb", "_gbps", "_dense", "_hr", "_per_hour", "_per_kwh", "pue", "_low", "_high")
    for row_type in TABLES:
        for raw in raw_rows(row_type):
            for name, text in raw.items():
                if name.endswith(numeric) and text:
                    assert Decimal(text).is_finite(), (raw, name)


def test_every_row_names_its_sources():
    assert all(row.sources and row.as_of and row.confidence for row in catalog.accelerators())
    assert all(row.source and row.confidence for row in catalog.pues())
    assert all(bool(row.price_usd_per_kwh) == bool(row.price_source) for row in catalog.regions())
    assert all(bool(row.gco2e_per_kwh) == bool(row.carbon_source) for row in catalog.regions())
    assert all(row.sources or (row.verified == "no" and row.notes) for row in catalog.engines())


@pytest.mark.parametrize("row", catalog.accelerators(), ids=lambda row: row.id)
def test_an_accelerator_is_found_by_id_name_maker_and_every_pattern(row):
    for name in (row.id, row.id.upper(), row.name, row.name.lower(), f"{row.vendor} {row.name}", *row.match):
        assert catalog.accelerator(name) is row, name


@pytest.mark.parametrize(
    ("name", "accelerator"),
    [
        ("H100", "nvidia-h100-sxm"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-sxm"),
        ("NVIDIA H100 PCIe", "nvidia-h100-pcie"),
        ("NVIDIA GH200 480GB", "nvidia-gh200"),
        ("NVIDIA B200", "nvidia-b200"),
        ("NVIDIA GB200", "nvidia-gb200-nvl72"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-80gb"),
        ("p5.48xlarge", "nvidia-h100-sxm"),
        ("AMD Instinct MI355X", "amd-mi355x"),
        ("TPU v7", "google-tpu-v7"),
        ("Jetson AGX Orin", "nvidia-jetson-agx-orin-64gb"),
    ],
)
def test_accelerators_are_found_as_people_drivers_and_clouds_write_them(name, accelerator):
    assert catalog.accelerator(name).id == accelerator


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("A100", "can be any of 'A100 SXM4 40GB', 'A100 SXM4 80GB'"),
        ("Jetson", "Jetson AGX Thor"),
        ("H1000", "nearest: .*'H100"),
        ("", "nothing comes near"),
    ],
)
def test_an_unknown_or_ambiguous_accelerator_is_refused_with_the_nearest(name, message):
    with pytest.raises(LookupError, match=message):
        catalog.accelerator(name)


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("de", "de"),
        ("Germany", "de"),
        ("DEU", "de"),
        ("us-va", "us-va"),
        ("us-east-1", "aws/us-east-1"),
        ("eastus", "azure/eastus"),
    ],
)
def test_regions_are_found_by_id_name_and_cloud_code(name, region):
    assert catalog.region(name).id == region


def test_every_region_and_engine_is_found_by_its_id():
    assert all(catalog.region(row.id) is row for row in catalog.regions())
    assert all(catalog.engine(row.id) is row for row in catalog.engines())
    assert catalog.engine("TensorRT-LLM").id == "tensorrt_llm"


@pytest.mark.parametrize(("find", "name"), [(catalog.region, "atlantis"), (catalog.engine, "vllmm")])
def test_unknown_regions_and_engines_are_refused(find, name):
    with pytest.raises(LookupError, match="not in the catalog"):
        find(name)


def test_a_pue_is_found_by_scope_or_not_at_all():
    assert catalog.pue("default/ai-air").pue == Decimal("1.27")
    assert catalog.pue("atlantis") is None
