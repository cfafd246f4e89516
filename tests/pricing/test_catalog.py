import csv
import re
from decimal import Decimal
from importlib.resources import files

import pytest

from millicent.pricing import catalog
from millicent.pricing.catalog import Accelerator, BadCatalogError, Engine, Pue, Region
from millicent.pricing.catalog.rows import columns
from millicent.pricing.hardware import Owned, hourly_cost

TABLES = {
    Accelerator: catalog.accelerators(),
    Region: catalog.regions(),
    Pue: catalog.pues(),
    Engine: catalog.engines(),
}


@pytest.fixture(autouse=True)
def _bundled_again():
    yield
    catalog.use(None)


def raw_rows(row_type):
    text = (files("millicent.pricing.catalog") / row_type.TABLE).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@pytest.mark.parametrize("row_type", TABLES, ids=lambda row_type: row_type.__name__)
def test_every_row_is_read_with_its_own_id(row_type):
    rows = TABLES[row_type]
    assert len(rows) == len(raw_rows(row_type)) > 10
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.parametrize("row_type", TABLES, ids=lambda row_type: row_type.__name__)
def test_every_column_of_a_table_is_read(row_type):
    assert list(columns(row_type)) == list(raw_rows(row_type)[0])


@pytest.mark.parametrize("row_type", TABLES, ids=lambda row_type: row_type.__name__)
def test_a_blank_stays_blank_and_a_number_keeps_its_digits(row_type):
    for row, raw in zip(TABLES[row_type], raw_rows(row_type), strict=True):
        for name in columns(row_type):
            value = getattr(row, name)
            assert (value in (None, ())) == (not raw[name]), (row.id, name)
            if isinstance(value, Decimal):
                assert str(value) == raw[name]
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


# ---- every value says where it was read


@pytest.mark.parametrize("row_type", TABLES, ids=lambda row_type: row_type.__name__)
def test_every_number_tells_its_source(row_type):
    for row in TABLES[row_type]:
        for name, kind in columns(row_type).items():
            if kind in (Decimal, Decimal | None) and getattr(row, name) is not None:
                assert row.provenance(name).source, (row.id, name)
    assert catalog.bundled().problems() == []


def test_a_source_is_shown_with_its_date_and_confidence():
    h100 = catalog.accelerator("H100")
    assert str(h100.provenance("capex_usd_typical")).endswith("(as of 2026-07, high confidence)")
    assert h100.provenance("ix_v2_it_kw").source.endswith("gpu-keys.ts")
    assert catalog.accelerator("google-coral-edgetpu").provenance("tdp_w").source.startswith("recalled")
    assert str(catalog.region("us-va").provenance("price_usd_per_kwh")).startswith("industrial average: EIA")
    assert catalog.region("us-va").provenance("gco2e_per_kwh").date == "2023"
    assert catalog.region("us-ny").provenance("gco2e_per_kwh") is None
    assert catalog.pue("aws/us-east-1").provenance("pue").confidence == "high"
    assert catalog.engine("vllm").provenance("prompt_tokens_metric").confidence == "source and docs read"


def test_a_cost_shows_the_source_date_and_confidence_of_what_it_took():
    cost = hourly_cost(Owned(), "H100", 8, region="us-va", busy_seconds=1800)
    told = {one.name: one.source for one in cost.inputs}
    assert "as of 2026-07, high confidence" in told["capex"]
    assert "as of 2024, high confidence" in told["tariff"]
    assert all("confidence" in told[name] for name in ("power", "PUE"))


def test_engines_tell_the_names_and_meaning_of_their_counters():
    vllm, llamacpp, tgi = (catalog.engine(name) for name in ("vllm", "llamacpp", "tgi"))
    assert (vllm.prompt_tokens_metric, vllm.cached_tokens_metric) == (
        "vllm:prompt_tokens_total",
        "vllm:prompt_tokens_cached_total",
    )
    assert vllm.requests_running_metric == "vllm:num_requests_running"
    assert (vllm.cached_in_prompt, llamacpp.cached_in_prompt) == (True, False)
    assert catalog.engine("lmdeploy").cached_in_prompt is True
    assert catalog.engine("vllm-mlx").cached_in_prompt is None
    assert (tgi.prompt_metric_type, tgi.default_port) == ("histogram sum", 9000)


# ---- what users add

H100_OF_OURS = """
[[accelerator]]
id = "nvidia-h100-sxm"
capex_usd_typical = 27_400.50
capex_scope = ["typical=server_share"]
sources = ["capex_typical=purchase order 4711"]
as_of = "2026-11"
confidence = "high"
"""

A_HALL = """
[[region]]
region_id = "hall-3"
kind = "site"
name = "Hall 3"
price_usd_per_kwh = "0.0912"
price_basis = "contract"
price_year = 2026
price_source = "power contract of 2026"
price_confidence = "high"

[[pue]]
scope = "hall-3"
kind = "site"
pue = 1.21
year = 2026
source = "own meters, November"
confidence = "high"

[[engine]]
id = "dtr"
metrics_path = "/metrics"
prompt_tokens_metric = "dtr_prompt_tokens_total"
prompt_includes_cached = "yes"
sources = ["own server"]
verified = "own server read"
"""


def test_a_row_of_ours_changes_what_it_gives_and_keeps_the_rest_with_its_source():
    ours, theirs = catalog.bundled().extended(H100_OF_OURS), catalog.bundled()
    row, base = ours.accelerator("H100"), theirs.accelerator("H100")
    assert (row.capex_usd_typical, base.capex_usd_typical) == (Decimal("27400.50"), Decimal(33600))
    assert str(row.provenance("capex_usd_typical")) == "purchase order 4711 (as of 2026-11, high confidence)"
    for name in ("tdp_w", "capex_usd_high", "ix_v2_it_kw"):
        assert row.provenance(name) == base.provenance(name)
    assert row.match == base.match
    assert [one.id for one in ours.accelerators] == [one.id for one in theirs.accelerators]
    assert ours.problems() == []


def test_new_rows_are_found_and_used_in_costs():
    catalog.use(catalog.bundled().extended(A_HALL))
    inputs = {one.name: one for one in hourly_cost(Owned(), "H100", 1, region="Hall 3").inputs}
    assert (inputs["tariff"].value, inputs["PUE"].value) == (Decimal("0.0912"), Decimal("1.21"))
    assert inputs["tariff"].source == "hall-3, contract: power contract of 2026 (as of 2026, high confidence)"
    dtr = catalog.engine("DTR")
    assert (dtr.prompt_tokens_metric, dtr.cached_in_prompt, dtr.kind) == (
        "dtr_prompt_tokens_total",
        True,
        "engine (unidentified)",
    )
    catalog.use(None)
    with pytest.raises(LookupError, match="'Hall 3' is not in the catalog"):
        catalog.region("Hall 3")


def test_one_extension_goes_on_top_of_another():
    once = catalog.bundled().extended(H100_OF_OURS)
    twice = once.extended(H100_OF_OURS.replace("27_400.50", "26_000").replace("4711", "4712"))
    row = twice.accelerator("H100")
    assert row.provenance("capex_usd_typical").source == "purchase order 4712"
    assert row.provenance("tdp_w") == catalog.accelerator("H100").provenance("tdp_w")


ACME = """
[[accelerator]]
id = "acme-x1"
vendor = "Acme"
name = "X1"
sources = ["spec=acme.example/x1"]
as_of = "2026"
confidence = "medium"
"""


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("[[accelerator", ["the file is not TOML"]),
        ("[[gpu]]\nid = 'x'", [r"\[\[gpu\]\] is no table of the catalog.*: write accelerator, region, pue, engine"]),
        ("[pue]\nscope = 'x'", [r"\[pue\] is one table: write \[\[pue\]\]"]),
        (ACME + "tdp_w = 700", []),
        (ACME + "tdp_watts = 700", [r"tdp_watts is no field \(did you mean 'tdp_w'\?\)"]),
        (ACME + "tdp_w = 'much'", ["tdp_w 'much' is not a number from 0 to .* without a unit"]),
        (ACME + "tdp_w = -1", ["tdp_w -1 is not a number"]),
        (ACME + "tdp_w = true", ["tdp_w True is not a number"]),
        (ACME + "tdp_w = nan", ["is not a number"]),
        (ACME + "tdp_w = 0.1234567890123", ["has more than 12 decimals"]),
        (ACME + "chip_price_usd = 900", ['chip_price_usd 900 has no source: add "chip_price=where it was read"']),
        (ACME.replace("spec=", "specs="), ["'specs' is no name of what was read .*did you mean 'spec'"]),
        (ACME.replace("spec=acme.example/x1", "acme.example"), ["does not say of what"]),
        (ACME.replace('confidence = "medium"', 'confidence = "sure"'), ["confidence 'sure' is not one of high"]),
        (ACME.replace('as_of = "2026"', ""), ["as_of is missing: write when the figures were read"]),
        (ACME.replace('as_of = "2026"', 'as_of = "soon"'), ["as_of 'soon' is no date"]),
        (ACME.replace('vendor = "Acme"', ""), ["vendor is missing"]),
        (ACME.replace('"X1"', '"h200 sxm 141gb"'), ["name 'h200 sxm 141gb' is that of 'nvidia-h200-sxm' already"]),
        (ACME + ACME, ["id 'acme-x1' is told twice"]),
        ("[[region]]\nregion_id = 'de'\nprice_usd_per_kwh = 0.2", ["price_usd_per_kwh 0.2 has no price_source, "]),
        ("[[region]]\nregion_id = 'de'\ncarbon_source = 'x'", ["carbon_source tell of no gco2e_per_kwh"]),
        ("[[region]]\nregion_id = 'de'\nprice_year = 1066", ["price_year 1066 is not a year from 1990"]),
        ("[[pue]]\nscope = 'de'\nkind = 'x'\npue = 0.9", ["pue 0.9 is below 1", "source is missing"]),
        ("[[engine]]\nid = 'vllm'\nnotes = 'ours'", ["sources is missing", "verified is missing"]),
        ("[[engine]]\nname = 'x'", ["id is missing", "kind is missing"]),
        ("accelerator = [1]", ["1 is no table"]),
    ],
)
def test_what_cannot_be_taken_is_told_with_a_remedy_and_all_at_once(text, problems):
    if not problems:
        assert catalog.bundled().extended(text).accelerator("acme-x1").tdp_w == 700
        return
    with pytest.raises(BadCatalogError) as caught:
        catalog.bundled().extended(text)
    for problem in problems:
        assert any(re.search(problem, one) for one in caught.value.problems), caught.value.problems


def test_every_problem_of_a_file_is_told():
    bad = ACME + "tdp_w = -1\ncloud_usd_per_hour = 3\n" + "[[pue]]\npue = 1.2\n" + "[[region]]\nname = 3\n"
    with pytest.raises(BadCatalogError) as caught:
        catalog.bundled().extended(bad)
    problems = caught.value.problems
    assert len([one for one in problems if one.startswith("[[accelerator]] 1: ")]) == 2
    assert {one.partition(":")[0] for one in problems} == {"[[accelerator]] 1", "[[pue]] 1", "[[region]] 1"}
    assert str(caught.value).splitlines() == list(problems)
