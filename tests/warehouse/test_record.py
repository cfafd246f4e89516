"""The record, the tables that store it and the dictionary that sums it say the same."""

import pyarrow as pa
import pytest
from sqlalchemy import select, text

from millicent.warehouse import record, tables
from millicent.warehouse.metrics import DICTIONARY
from millicent.warehouse.query import ASKABLE

STORED = {
    pa.string(): "VARCHAR",
    pa.uuid(): "UUID",
    pa.uint64(): "UBIGINT",
    pa.int64(): "BIGINT",
    pa.int32(): "INTEGER",
    pa.bool_(): "BOOLEAN",
    pa.float64(): "DOUBLE",
    record.INSTANT: "TIMESTAMP",
    record.USD: "DECIMAL(18,12)",
    record.TEXT_MAP: "MAP(VARCHAR, VARCHAR)",
    record.COUNT_MAP: "MAP(VARCHAR, BIGINT)",
    pa.list_(pa.string()): "VARCHAR[]",
}


def columns(facts, table):
    asked = text(
        f"SELECT column_name, data_type, is_nullable FROM information_schema.columns WHERE table_name = '{table}' "
        "ORDER BY ordinal_position"
    )
    return {row["column_name"]: row["data_type"] for row in facts.engine.read(asked).to_pylist()}


def test_the_table_of_calls_is_the_record_name_by_name_and_type_by_type(facts):
    stored = {column.name: STORED[column.type] for column in record.CALLS}
    assert columns(facts, "calls") == columns(facts, "told") == stored


def test_the_hourly_rollup_has_every_dimension_and_every_sum_with_its_unknowns(facts):
    stored = columns(facts, "usage_hourly")
    dimensions = {name: STORED[record.SCHEMA.field(name).type] for name in record.DIMENSIONS}
    sums = dict.fromkeys(record.TOKENS, "BIGINT") | dict.fromkeys(record.MONEY, "DECIMAL(38,12)")
    unknowns = {f"{name}_nulls": "BIGINT" for name in sums}
    fixed = {"tenant": "VARCHAR", "hour": "TIMESTAMP", "calls": "BIGINT", "row_count": "BIGINT"}
    assert stored == fixed | dimensions | sums | unknowns


@pytest.mark.parametrize("table", tables.metadata.tables.values(), ids=str)
def test_a_table_as_statements_know_it_is_the_table_as_migrations_made_it(facts, table):
    assert set(columns(facts, table.name)) == {column.name for column in table.columns}
    assert facts.engine.read(select(table)).num_rows == 0


@pytest.mark.parametrize("column", record.CALLS, ids=lambda column: column.name)
def test_every_column_says_what_it_means(column):
    assert column.meaning
    assert (column.name.endswith("_tokens")) == (column.role == "tokens")
    assert (column.name.endswith("_usd")) == (column.role == "money")


def test_column_names_are_unique_and_askable_ones_are_dimensions_details_and_the_cost_type():
    names = [column.name for column in record.CALLS]
    assert len(set(names)) == len(names)
    assert set(ASKABLE) == {c.name for c in record.CALLS if c.role in {"dimension", "detail"}} | {record.COST_TYPE}


@pytest.mark.parametrize("measure", DICTIONARY.values(), ids=lambda measure: measure.name)
def test_every_measure_is_a_sum_or_a_ratio_of_two_sums_and_explains_itself(measure):
    assert measure.label
    assert measure.words.endswith(".")
    assert measure.formula
    parts = [measure.numerator, measure.denominator]
    if measure.sum_of:
        assert parts == [None, None]
    else:
        assert all(DICTIONARY[part].sum_of for part in parts)
        assert all(part in measure.formula for part in parts)
        assert measure.of_deployments == any(DICTIONARY[part].of_deployments for part in parts)
