"""Filters as text: what people write, what the product writes, and every name that tries to be more than a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millicent.dashboard.filters import parse, parse_all, written
from millicent.warehouse.query import BadQuery, Filter

awkward = st.text(st.sampled_from(list("\\,:null a")), min_size=1, max_size=8)
anything = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
values = st.lists(st.one_of(st.none(), awkward, anything), min_size=1, max_size=4).map(tuple)


@given(values, st.booleans())
def test_what_is_written_reads_as_it_was(chosen, negated):
    wanted = Filter("team", chosen, negated=negated)
    assert parse(written(wanted)) == wanted


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("team:a,b", ("a", "b")),
        ("team:null", (None,)),
        (r"team:\null", ("null",)),
        (r"team:\null,null", ("null", None)),
        (r"team:\\null", (r"\null",)),
        (r"team:Sales\, EMEA,Ops", ("Sales, EMEA", "Ops")),
        (r"team:a\\,b", ("a\\", "b")),
        (r"team:C:\temp", (r"C:\temp",)),
        ("team:nullable", ("nullable",)),
        ("team:a,,b", ("a", "", "b")),
    ],
)
def test_a_filter_reads_as_it_is_documented(text, values):
    assert parse(text) == Filter("team", values)
    assert parse(f"-{text}") == Filter("team", values, negated=True)


@pytest.mark.parametrize(
    ("text", "told"),
    [("team", "write team:search"), ("team:", "write team:search"), ("shoe:42", "unknown filter 'shoe'")],
)
def test_a_bad_filter_names_the_remedy(text, told):
    with pytest.raises(BadQuery, match=told):
        parse(text)


def test_no_filters_are_none():
    assert parse_all(None) == parse_all([]) == ()
