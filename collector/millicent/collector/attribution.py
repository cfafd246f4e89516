"""Who pays for a call, who served it, and which of our deployments that was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import polars as pl

from millicent.collector.batch import Batch, Context, first
from millicent.collector.decode import LABEL, LONGEST_TEXT, RESOURCE
from millicent.collector.dialects import ATTRIBUTION
from millicent.collector.hosts import COMPATIBLE, OURS, known, named
from millicent.pricing import catalog
from millicent.warehouse.deployments import Deployment
from millicent.warehouse.rules import ATTRIBUTE, FIELDS, SETTABLE, Condition, Rule
from millicent.warehouse.tables import EDGE_TAGS
from millicent.warehouse.tables import edges as edges_table

OF_DEPLOYMENT: Final = ("engine", "precision", "accelerator", "accelerator_count", "region", "environment")
"""What the declaration of a deployment says about calls to it; it wins over tags."""
_TAGS: Final = tuple(key for keys in ATTRIBUTION.values() for key in keys)
_DECLARED: Final = ("declared", *(f"declared_{name}" for name in OF_DEPLOYMENT), "effective_from", "effective_to")
_OF_OTHERS: Final = ("deployment", "engine", "accelerator", "accelerator_count", "precision")
"""Tags that say nothing about a call to a known API when they stand on the resource: its service calls others too."""


def attribute(batch: Batch, _: Context) -> Batch:
    """Who pays: the nearest tag wins, from the span, then from its resource, and where each came from is kept."""
    return replace(batch, spans=_tagged(batch.spans).drop(_TAGS), edges=_edges(batch.edges))


def _tagged(spans: pl.DataFrame) -> pl.DataFrame:
    """Every tag; `tag_sources` for those that only the resource tells; `identity_source` for the team."""
    on_span = {name: first(spans, keys) for name, told in ATTRIBUTION.items() if (keys := _keys(told, of_span=True))}
    beside = {name: first(spans, keys) for name, told in ATTRIBUTION.items() if (keys := _keys(told, of_span=False))}
    if "engine" in spans.columns:
        on_span["engine"] = pl.coalesce(on_span["engine"], "engine")
    tags = {name: pl.coalesce(*(part[name] for part in (on_span, beside) if name in part)) for name in ATTRIBUTION}
    tags["accelerator_count"] = tags["accelerator_count"].cast(pl.Int32, strict=False)
    told = spans.with_columns(
        tag_sources=listed({
            name: pl.when(on_span[name].is_null() & beside[name].is_not_null()).then(pl.lit("resource"))
            for name in sorted(EDGE_TAGS)
            if name in on_span and name in beside
        }),
        identity_source=pl.when(on_span["team"].is_not_null()).then(pl.lit("span"))
        .when(beside["team"].is_not_null()).then(pl.lit("resource")),
        **tags,
    )  # fmt: skip
    return told.with_columns(accelerator=_catalogued(told["accelerator"]))


def listed(sources: dict[str, pl.Expr]) -> pl.Expr:
    """`tag:source` of every tag whose source is known, comma between, in the order given; null when there is none."""
    parts = [pl.concat_str(pl.lit(f"{name}:"), source) for name, source in sources.items()]
    text = pl.concat_str(parts, separator=",", ignore_nulls=True)
    return pl.when(text != "").then(text)


def _keys(keys: Sequence[str], *, of_span: bool) -> tuple[str, ...]:
    return tuple(key for key in keys if key.startswith(RESOURCE) != of_span)


def _edges(spans: pl.DataFrame) -> pl.DataFrame:
    """Spans that are no calls as rows of `edges`; those that no other span can point to are of no use and left out."""
    if spans.is_empty():
        return pl.DataFrame()
    sound = spans.filter(pl.col("span_id").is_not_null(), pl.col("trace_id").bin.size() == 16)
    return _tagged(sound).select(column.name for column in edges_table.columns)


def match_deployment(batch: Batch, context: Context) -> Batch:
    """Who served it, by the host that answered; and which of our deployments, by name or host, on what it runs."""
    return replace(batch, spans=placed(batch.spans, context.deployments))


def placed(spans: pl.DataFrame, deployments: Sequence[tuple[str, Deployment]]) -> pl.DataFrame:
    """`spans` with provider, deployment and what it runs on, and `billing`; the same again when done twice.

    A declared deployment wins, by the name on the call or by its host. A known API's host then means that API, however
    the call's resource is tagged. Any other host is not believed to be the provider whose wire format it speaks, unless
    a rule says so.
    """
    spans = named(spans)
    spans = pl.concat([spans.with_row_index("at"), known(spans)], how="horizontal")
    spans = spans.with_columns(_without_resource_tags(pl.col("kind") == "api"))
    periods = declared(deployments)
    asked = spans.select(
        "at", "tenant", "deployment", "started_at", "endpoint_host",
        host_and_port=pl.concat_str("endpoint_host", pl.lit(":"), "endpoint_port"),
    )  # fmt: skip
    found = pl.concat([
        of_name(asked, periods),
        _of_host(asked, periods, "host_and_port"),
        _of_host(asked, periods, "endpoint_host"),
    ]).unique("at", keep="first", maintain_order=True)  # fmt: skip
    by_rule = {name: (source_of(name) == "rule").fill_null(False) for name in OF_DEPLOYMENT}
    if not spans["tag_sources"].str.contains(":rule", literal=True).any():
        by_rule = dict.fromkeys(OF_DEPLOYMENT, pl.lit(value=False))
    spans = spans.join(found, on="at", how="left", maintain_order="left").with_columns(
        deployment=pl.coalesce("declared", "deployment"),
        **{name: pl.when(~it).then(f"declared_{name}").fill_null(pl.col(name)) for name, it in by_rule.items()},
    )
    spans = spans.with_columns(engine=pl.coalesce("engine", _engine()))
    ruled = (source_of("provider") == "rule").fill_null(False)
    spans = spans.with_columns(wire=pl.col("wire") & ~ruled).with_columns(billing=billing())
    spans = spans.with_columns(provider=pl.when(ruled).then("provider").otherwise(_provider()))
    return spans.drop("at", *_KNOWN, *found.columns, strict=False)


def billing() -> pl.Expr:
    """`self_hosted` or `api`, from the columns of the record and those of `hosts.known`.

    At a private address what speaks a wire format is ours, but for models that nobody can run themselves: there a
    gateway stands, and what it pays for them is unknown.
    """
    tagged = pl.any_horizontal(pl.col(name).is_not_null() for name in ("deployment", "accelerator", "engine"))
    ours = pl.col("wire") & pl.col("kind").is_in(["loopback", "private"]) & ~pl.col("closed")
    return pl.when(tagged | ours.fill_null(False)).then(pl.lit("self_hosted")).otherwise(pl.lit("api"))


def _provider() -> pl.Expr:
    told, kind = pl.col("provider"), pl.col("kind")
    right = (told == pl.col("api_provider")) | pl.col("api_also").list.contains(told)
    somewhere = (pl.col("wire") & kind.is_not_null()) | pl.col("told_engine").is_not_null()
    beside_the_app = (kind == "loopback") & pl.col("closed")
    return (
        pl.when(kind == "api")
        .then(pl.when(right).then(told).otherwise("api_provider"))
        .when(somewhere & (pl.col("billing") == "self_hosted"))
        .then(pl.lit(OURS))
        .when(somewhere & ~beside_the_app)
        .then(pl.lit(COMPATIBLE))
        .otherwise(told)
    )


def _engine() -> pl.Expr:
    kind, wire = pl.col("kind"), pl.col("wire")
    elsewhere = (kind.is_null() | (kind != "api")) & ~pl.col("closed")
    own_span = kind.is_null() & pl.col("provider").is_null()
    return pl.coalesce(
        pl.when(elsewhere).then("told_engine"),
        pl.when(elsewhere & wire).then("host_engine"),
        pl.when(elsewhere & wire & (kind.is_not_null() | own_span)).then("service_engine"),
    )


def _without_resource_tags(where: pl.Expr) -> list[pl.Expr]:
    """Tags of `_OF_OTHERS` gone, with their sources, where they came from the resource and `where` is true."""
    sources = pl.col("tag_sources")
    gone = {name: where & sources.str.contains(f"(^|,){name}:resource(,|$)") for name in _OF_OTHERS}
    left = sources.str.replace_all(rf"(^|,)({'|'.join(_OF_OTHERS)}):resource\b", "").str.strip_prefix(",")
    return [
        *(pl.when(~it.fill_null(False)).then(name).alias(name) for name, it in gone.items()),
        pl.when(where.fill_null(False)).then(pl.when(left != "").then(left)).otherwise(sources).alias("tag_sources"),
    ]


def of_name(asked: pl.DataFrame, periods: pl.DataFrame) -> pl.DataFrame:
    """What is declared for `asked` (at, tenant, deployment, started_at): `at` and a column for each fact."""
    by_name = periods.unique(["tenant", "deployment", "effective_from"], maintain_order=True)
    return _holding(asked.join(by_name, on=["tenant", "deployment"], maintain_order="left_right"))


def _of_host(asked: pl.DataFrame, periods: pl.DataFrame, key: str) -> pl.DataFrame:
    by_host = periods.filter(pl.col("endpoint").is_not_null())
    keys = ["tenant", key], ["tenant", "endpoint"]
    return _holding(asked.join(by_host, left_on=keys[0], right_on=keys[1], maintain_order="left_right"))


def _holding(found: pl.DataFrame) -> pl.DataFrame:
    within = (pl.col("started_at") >= pl.col("effective_from")) & (
        pl.col("effective_to").is_null() | (pl.col("started_at") < pl.col("effective_to"))
    )
    return found.filter(within).select("at", "declared", *(f"declared_{name}" for name in OF_DEPLOYMENT))


def declared(deployments: Iterable[tuple[str, Deployment]]) -> pl.DataFrame:
    """Declared deployment periods, one row per endpoint."""
    schema = {
        "tenant": pl.String, "deployment": pl.String, "endpoint": pl.String,
        "effective_from": pl.Datetime("us", "UTC"), "effective_to": pl.Datetime("us", "UTC"),
        **{f"declared_{name}": pl.Int32 if name == "accelerator_count" else pl.String for name in OF_DEPLOYMENT},
    }  # fmt: skip
    rows = [
        {
            "tenant": tenant, "deployment": one.name, "endpoint": endpoint,
            "effective_from": one.effective_from, "effective_to": one.effective_to,
            **{f"declared_{name}": getattr(one, name) for name in OF_DEPLOYMENT},
        }
        for tenant, one in deployments
        for endpoint in one.endpoints or (None,)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=schema).with_columns(
        pl.col("endpoint").str.to_lowercase(), declared=pl.col("deployment")
    )


def _catalogued(told: pl.Series) -> pl.Series:
    """Accelerators by their catalog id where the catalog knows them, as told where it does not."""
    ids: dict[str, str] = {}
    for name in told.drop_nulls().unique().to_list():
        with suppress(LookupError):
            ids[name] = catalog.accelerator(name).id
    return told.replace(ids)


_KNOWN: Final = ("kind", "api_provider", "api_also", "closed", "wire", "host_engine", "service_engine", "told_engine")


# ---- rules


def follow_rules(batch: Batch, context: Context) -> Batch:
    """Tags that rules of the control plane give, where telemetry does not tell them or a rule knows better.

    Rules look at provider, host and deployment as they will be stored.
    """
    spans = placed(batch.spans, context.deployments) if context.rules else batch.spans
    return replace(batch, spans=apply_rules(spans, context.rules, context.deployments))


def rule_keys(rules: Iterable[tuple[str, Rule]]) -> tuple[str, ...]:
    """Attributes that rules look at, as `decode` wants them named."""
    return tuple(sorted({key for _, rule in rules for key in _attributes(rule)}))


def keep_attributes(spans: pl.DataFrame, rules: Sequence[tuple[str, Rule]]) -> pl.DataFrame:
    """Copy what rules look at into `labels`, for tenants that have such a rule, so that history can be tagged again.

    Args:
        spans: as decoded, with a column for each of `rule_keys(rules)`, `tenant` and `labels`.
        rules: with their tenant.
    """
    entries = []
    for key in rule_keys(rules):
        tenants = {tenant for tenant, rule in rules if key in _attributes(rule)}
        if key in spans.columns and spans[key].null_count() < spans.height:
            value = pl.when(pl.col("tenant").is_in(tenants)).then(
                pl.col(key).cast(pl.String).str.slice(0, LONGEST_TEXT)
            )
            entries.append((pl.lit(key), value))
    return spans.with_columns(labels=_labelled(entries)) if entries else spans


def apply_rules(
    spans: pl.DataFrame, rules: Sequence[tuple[str, Rule]], deployments: Sequence[tuple[str, Deployment]] = ()
) -> pl.DataFrame:
    """`spans` tagged by `rules`; what rules tagged before is taken back first, so that it can be done again.

    For each tag the first rule by position decides that holds for the call and may set it. What it replaces is kept in
    `labels` as `told:SOURCE:TAG`. A deployment that a rule names brings what is declared of it.

    Args:
        spans: columns of the record, as far as rules look at them.
        rules: with their tenant, by position.
        deployments: with their tenant.
    """
    told = as_told(spans)
    live, holds = _held(told, rules)
    if not live:
        return told if told is spans else _settled(told, spans)
    held = pl.concat([told.with_row_index("at"), holds], how="horizontal")
    given = held.select("at", "tenant", "started_at", *(_decided(tag, live) for tag in SETTABLE))
    if given["deployment"].null_count() < given.height:
        found = of_name(given.filter(pl.col("deployment").is_not_null()), declared(deployments))
        given = given.join(found.drop("declared"), on="at", how="left", maintain_order="left")
        given = given.with_columns(
            pl.coalesce(name, f"declared_{name}") if name in SETTABLE else pl.col(f"declared_{name}").alias(name)
            for name in OF_DEPLOYMENT
        )
    return _settled(_retagged(told, given), spans)


def reached(spans: pl.DataFrame, rules: Sequence[tuple[str, Rule]]) -> list[tuple[Rule, int, int]]:
    """Each rule that holds for some of `spans`, for how many, and for how many it is the one that sets a tag."""
    told = as_told(spans)
    live, holds = _held(told, rules)
    if not live:
        return []
    held = pl.concat([told, holds], how="horizontal")
    first_ = held.select(_decided(tag, live, place=True) for tag in SETTABLE)
    decides = [
        first_.select(pl.any_horizontal(pl.all() == at).fill_null(False).sum()).item() for at in range(len(live))
    ]
    counts = holds.sum().row(0)
    return [(rule, counts[at], decides[at]) for at, (_, rule) in enumerate(live)]


def _held(told: pl.DataFrame, rules: Sequence[tuple[str, Rule]]) -> tuple[list[tuple[str, Rule]], pl.DataFrame]:
    """The rules that hold for some of `told`, and where each does: a column for each, named by its place."""
    present = set(told["tenant"].unique()) if rules else set()
    live = [(tenant, rule) for tenant, rule in rules if tenant in present]
    if not live:
        return [], pl.DataFrame()
    fields = _fields(told, {condition.field for _, rule in live for condition in rule.when})
    holds = fields.select(_holds(tenant, rule).alias(str(at)) for at, (tenant, rule) in enumerate(live))
    some = [at for at, any_ in enumerate(holds.select(pl.all().any()).row(0)) if any_]
    return [live[at] for at in some], holds.select(pl.col(str(at)).alias(str(n)) for n, at in enumerate(some))


def _decided(tag: str, rules: Sequence[tuple[str, Rule]], *, place: bool = False) -> pl.Expr:
    """What the first rule gives that holds (a column by its place in `rules`) and may set `tag`, or only its place."""
    values = [
        pl.when(pl.col(str(at)) & (pl.lit(rule.override) | pl.col(tag).is_null())).then(
            pl.lit(at, pl.Int64) if place else pl.lit(rule.sets[tag])
        )
        for at, (_, rule) in enumerate(rules)
        if tag in rule.sets
    ]
    return pl.coalesce(*values, pl.lit(None, pl.Int64 if place else pl.String)).alias(tag)


def _retagged(told: pl.DataFrame, given: pl.DataFrame) -> pl.DataFrame:
    """`told` with the tags that `given` (same height and order) has, their sources, and what they replace in labels."""
    tags = [tag for tag in RULED if tag in given.columns and given[tag].null_count() < given.height]
    if not tags:
        return told
    both = pl.concat([told, given.select(pl.col(tag).alias(f"given_{tag}") for tag in tags)], how="horizontal")
    new = {tag: pl.col(f"given_{tag}").ne_missing(pl.col(tag)) & pl.col(f"given_{tag}").is_not_null() for tag in tags}
    source = {tag: source_of(tag) for tag in tags}
    replaced = [
        (
            pl.concat_str(pl.lit("told:"), source[tag].fill_null("span"), pl.lit(f":{tag}")),
            pl.when(new[tag]).then(pl.col(tag).cast(pl.String)),
        )
        for tag in tags
    ]
    some = both.select(pl.any_horizontal((it & pl.col(tag).is_not_null()).any() for tag, it in new.items())).item()
    kept = {tag: pl.when(new[tag]).then(pl.lit("rule")).otherwise(source[tag]) for tag in tags}
    return both.with_columns(
        tag_sources=_resourced(both, kept),
        labels=_labelled(replaced) if some else pl.col("labels"),
        identity_source=pl.when(new["team"]).then(pl.lit("rule")).otherwise("identity_source")
        if "team" in new else pl.col("identity_source"),
        **{tag: pl.when(it).then(f"given_{tag}").otherwise(tag) for tag, it in new.items()},
    ).select(told.columns)  # fmt: skip


def as_told(spans: pl.DataFrame) -> pl.DataFrame:
    """`spans` without what rules set, and with what it had replaced."""
    sources = spans.select("tag_sources").unique()
    tags = [tag for tag in RULED if (sources.select(source_of(tag)).to_series() == "rule").any()]
    if not tags:
        return spans
    replaced = _pairs(spans).with_columns(
        source=pl.col("key").str.extract(_TOLD, 1), tag=pl.col("key").str.extract(_TOLD, 2)
    )
    rows = spans.with_row_index("at")
    for tag in tags:
        before = replaced.filter(pl.col("tag") == tag).unique("at", keep="first", maintain_order=True)
        before = before.select("at", pl.col("value").alias(f"was_{tag}"), pl.col("source").alias(f"of_{tag}"))
        rows = rows.join(before, on="at", how="left", maintain_order="left")
    ruled = {tag: (source_of(tag) == "rule").fill_null(False) for tag in tags}
    without = pl.col("labels").list.filter(~pl.element().struct.field("key").str.contains(_TOLD))
    source = {tag: pl.when(it).then(f"of_{tag}").otherwise(source_of(tag)) for tag, it in ruled.items()}
    return rows.with_columns(
        tag_sources=_resourced(rows, source),
        labels=pl.when(without.list.len() > 0).then(without),
        identity_source=pl.when(ruled["team"]).then("of_team").otherwise("identity_source")
        if "team" in ruled else pl.col("identity_source"),
        **{
            tag: pl.when(it).then(pl.col(f"was_{tag}").cast(spans.schema[tag], strict=False)).otherwise(tag)
            for tag, it in ruled.items()
        },
    ).select(spans.columns)  # fmt: skip


def _settled(after: pl.DataFrame, before: pl.DataFrame) -> pl.DataFrame:
    """`after` with `billing` decided anew where rules, now or before, changed whose price list or hardware it is."""
    changed = pl.any_horizontal(
        after[name].ne_missing(before[name]) for name in ("deployment", "provider", "engine", "accelerator")
    )
    if not after.select(changed.any()).item():
        return after
    rows = pl.concat([after, known(after)], how="horizontal")
    ruled = (source_of("provider") == "rule").fill_null(False)
    rows = rows.with_columns(wire=pl.col("wire") & ~ruled, changed=changed)
    return rows.with_columns(billing=pl.when("changed").then(billing()).otherwise("billing")).select(after.columns)


def _fields(spans: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """What rules look at, a column for each of `names` beside `tenant` and `started_at`."""
    keys = {name: _label(name) for name in names if name not in FIELDS}
    fields = spans.select("tenant", "started_at", *(name for name in names if name in FIELDS))
    if not keys:
        return fields
    pairs, fields = _pairs(spans).filter(pl.col("key").is_in(list(keys.values()))), fields.with_row_index("at")
    for name, key in keys.items():
        mine = pairs.filter(pl.col("key") == key).unique("at", keep="first", maintain_order=True)
        fields = fields.join(mine.select("at", pl.col("value").alias(name)), on="at", how="left", maintain_order="left")
    return fields.drop("at")


def _pairs(spans: pl.DataFrame) -> pl.DataFrame:
    """Every label: `at` (row of `spans`), `key`, `value`."""
    labels = spans.with_row_index("at").select("at", "labels")
    return labels.explode("labels", empty_as_null=False, keep_nulls=False).unnest("labels")


def _holds(tenant: str, rule: Rule) -> pl.Expr:
    started = pl.col("started_at")
    terms = [pl.col("tenant") == tenant, *(_meets(condition) for condition in rule.when)]
    if rule.effective_from is not None:
        terms.append(started >= rule.effective_from)
    if rule.effective_to is not None:
        terms.append(started < rule.effective_to)
    return pl.all_horizontal(terms).fill_null(False)


def _meets(condition: Condition) -> pl.Expr:
    field = pl.col(condition.field)
    if condition.operator == "absent":
        return field.is_null()
    if condition.operator == "is":
        return field.is_in(condition.values)
    return field.str.contains(condition.values[0])


def _attributes(rule: Rule) -> set[str]:
    """Attributes that a rule looks at and that are not labels anyway."""
    fields = {condition.field for condition in rule.when} - set(FIELDS)
    return {_label(name) for name in fields if not name.startswith(f"{ATTRIBUTE}{LABEL}")}


def _label(field: str) -> str:
    """Under which key of `labels` an attribute that a rule looks at is kept."""
    return field.removeprefix(f"{ATTRIBUTE}{LABEL}").removeprefix(ATTRIBUTE)


def _labelled(entries: Sequence[tuple[pl.Expr, pl.Expr]]) -> pl.Expr:
    """`labels` with an entry for each (key, value) whose value is known; null when there is none."""
    pairs = [pl.when(value.is_not_null()).then(pl.struct(key=key, value=value)) for key, value in entries]
    added = pl.concat_list(pairs).list.drop_nulls()
    whole = pl.when(pl.col("labels").is_null()).then(added).otherwise(pl.concat_list("labels", added))
    return pl.when(whole.list.len() > 0).then(whole)


def source_of(tag: str) -> pl.Expr:
    """Where a tag's value came from; null when it stands on the span itself."""
    return pl.col("tag_sources").str.extract(rf"(?:^|,){tag}:([a-z]+)(?:,|$)")


def _resourced(rows: pl.DataFrame, sources: dict[str, pl.Expr]) -> pl.Series:
    """`tag_sources` with these tags' sources instead of what it says of them; a source of null or span is not named."""
    told = rows.select("tag_sources", **sources)
    rest = pl.col("tag_sources").str.replace_all(rf"(^|,)({'|'.join(sources)}):[a-z]+", "").str.strip_prefix(",")
    changed = listed({tag: pl.when(pl.col(tag) != "span").then(tag) for tag in sources})
    whole = pl.concat_str(pl.when(rest != "").then(rest), changed, separator=",", ignore_nulls=True)
    sorted_ = pl.when(whole != "").then(whole.str.split(",").list.sort().list.join(","))
    each = told.unique().with_columns(text=sorted_)
    return told.join(each, on=told.columns, how="left", nulls_equal=True, maintain_order="left")["text"]


RULED: Final = tuple(dict.fromkeys((*SETTABLE, *OF_DEPLOYMENT)))
_TOLD: Final = r"^told:([a-z]+):([a-z_]+)$"
"""Label of what a rule replaced: where it came from, which tag it is."""
