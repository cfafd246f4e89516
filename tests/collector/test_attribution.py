"""Who pays and who served: tags and where they came from, hosts and what they mean for money, rules and history."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millicent.collector import attribution, hosts, pipeline
from millicent.collector.batch import Batch, Context, Incoming
from millicent.pricing import bundled
from millicent.pricing.book import PriceBook
from millicent.warehouse import record, rules
from millicent.warehouse.control import Deployment
from millicent.warehouse.tables import edges

QWEN = {"gen_ai.request.model": "Qwen/Qwen3-8B", "gen_ai.response.model": "Qwen/Qwen3-8B"}
GPT = {"gen_ai.request.model": "gpt-4o", "gen_ai.response.model": "gpt-4o"}
CLAUDE = {"gen_ai.request.model": "claude-sonnet-4-5", "gen_ai.response.model": "claude-sonnet-4-5"}
DAY = datetime(2026, 11, 20, tzinfo=UTC)
H100 = Deployment(
    name="chat-h100", model="qwen3-8b", accelerator="nvidia-h100-sxm", accelerator_count=8, engine="vllm",
    environment="prod", effective_from=DAY, profile={"kind": "rented", "usd_per_hour": "2"},
)  # fmt: skip


@pytest.fixture(scope="module")
def one(otlp):
    """The row of one call."""

    def row(attributes=(), *, resource=(), deployments=(), scope="millicent.sdk", **fields):
        body = otlp.request(otlp.span(attributes, **fields), scope=scope, resource=resource)
        return next(otlp.run(body, deployments=deployments).spans.iter_rows(named=True), None)

    return row


# ---- tags and where they came from


def test_the_span_wins_over_its_resource_and_each_tag_says_where_it_came_from(one):
    row = one(
        {"millicent.team": "search", "millicent.project": " "},
        resource={"millicent.team": "platform", "millicent.project": "p1", "deployment.environment": "prod",
                  "millicent.accelerator_count": 4, "service.name": "ranker"},
    )  # fmt: skip
    assert (row["team"], row["project"], row["environment"], row["accelerator_count"]) == ("search", "p1", "prod", 4)
    assert row["tag_sources"] == "accelerator_count:resource,environment:resource,project:resource"
    assert (row["identity_source"], row["service"]) == ("span", "ranker")


@pytest.mark.parametrize(
    ("attributes", "resource", "source", "sources"),
    [
        ({}, {}, None, None),
        ({"millicent.team": "a"}, {}, "span", None),
        ({}, {"team": "a"}, "resource", "team:resource"),
        ({"millicent.team": ""}, {"team": "a"}, "resource", "team:resource"),
        ({"millicent.team": "\t"}, {"team": " "}, None, None),
    ],
)
def test_a_team_says_where_it_came_from(one, attributes, resource, source, sources):
    row = one(attributes, resource=resource)
    assert (row["identity_source"], row["tag_sources"]) == (source, sources)
    assert row["team"] == ("a" if source else None)


def test_spans_that_are_no_calls_leave_rows_with_the_same_tags():
    tags = {key: None for keys in attribution.ATTRIBUTION.values() for key in keys}
    told = tags | {
        "millicent.team": "search",
        "resource:millicent.accelerator": "H100 SXM",
        "resource:service.name": "s",
    }
    ids = {"tenant": "acme", "parent_span_id": None, "received_at": DAY, "started_at": DAY, "duration_ms": 5}
    raw = pl.DataFrame(
        [told | ids | {"span_id": 7, "trace_id": bytes(16)}, tags | ids | {"span_id": None, "trace_id": bytes(16)},
         tags | ids | {"span_id": 8, "trace_id": b"short"}],
        schema={key: pl.Int64 if key.endswith("_count") else pl.String for key in tags}
        | {"tenant": pl.String, "parent_span_id": pl.UInt64, "received_at": pl.Datetime("us", "UTC"),
           "started_at": pl.Datetime("us", "UTC"), "duration_ms": pl.Int64, "span_id": pl.UInt64,
           "trace_id": pl.Binary},
    )  # fmt: skip
    done = attribution.attribute(Batch(raw.clear(), edges=raw), None).edges
    assert done.columns == [column.name for column in edges.columns]
    (row,) = done.to_dicts()
    assert {name: value for name, value in row.items() if value is not None} == {
        **{name: value for name, value in ids.items() if value is not None}, "span_id": 7, "trace_id": bytes(16),
        "team": "search", "accelerator": "nvidia-h100-sxm", "service": "s", "tag_sources": "accelerator:resource",
    }  # fmt: skip


# ---- hosts


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("API.OpenAI.com", "api.openai.com", None),
        ("https://user:secret@llm.acme.example:8443/v1?x=1", "llm.acme.example", 8443),
        ("http://10.0.0.3", "10.0.0.3", None),
        ("llm.internal.:8000", "llm.internal", 8000),
        ("[fd00::1]:8000", "[fd00::1]", 8000),
        ("::1", "::1", None),
        ("/run/vllm.sock", "/run/vllm.sock", None),
        ("  ", None, None),
        (None, None, None),
    ],
)
def test_an_address_is_brought_to_one_form(address, host, port):
    frame = hosts.named(pl.DataFrame({"endpoint_host": [address]}, schema={"endpoint_host": pl.String}))
    assert frame.row(0) == (host, port)


KNOWN = [
    ("api.openai.com", "openai", "openai"),
    ("eu.api.openai.com", "openai", "openai"),
    ("api.openai.com", "langchain", "openai"),
    ("api.openai.com", None, "openai"),
    ("acme.openai.azure.com", "openai", "azure.ai.openai"),
    ("acme.openai.azure.com", "azure.ai.openai", "azure.ai.openai"),
    ("acme.privatelink.openai.azure.com", "openai", "azure.ai.openai"),
    ("acme.services.ai.azure.com", "azure.ai.openai", "azure.ai.openai"),
    ("api.anthropic.com", "openai", "anthropic"),
    ("bedrock-runtime.eu-west-1.amazonaws.com", "anthropic", "aws.bedrock"),
    ("vpce-1-2.bedrock-runtime.us-east-1.vpce.amazonaws.com", "aws.bedrock", "aws.bedrock"),
    ("us-east5-aiplatform.googleapis.com", "anthropic", "gcp.vertex_ai"),
    ("aiplatform.googleapis.com", "gcp.gen_ai", "gcp.gen_ai"),
    ("generativelanguage.googleapis.com", "openai", "gcp.gemini"),
    ("generativelanguage.googleapis.com", "gcp.gen_ai", "gcp.gen_ai"),
    ("openrouter.ai", "openai", "openrouter"),
    ("api.groq.com", "openai", "groq"),
]


@pytest.mark.parametrize(("host", "told", "provider"), KNOWN)
def test_a_known_host_says_who_served_whatever_wire_format_was_told(one, host, told, provider):
    row = one({"server.address": host, "gen_ai.provider.name": told, **GPT})
    assert (row["provider"], row["billing"], row["engine"]) == (provider, "api", None)


def test_every_known_host_leads_to_the_price_list_of_its_provider():
    """Where the price data knows the host of an example, our name of the provider finds the same list."""
    examples = [host for host, _, _ in KNOWN] + [
        "api.x.ai", "api.deepseek.com", "api.mistral.ai", "api.cohere.com", "api.perplexity.ai", "api.moonshot.ai",
        "api.together.xyz", "api.fireworks.ai", "api.cerebras.ai", "api.novita.ai", "inference.baseten.co",
        "api.voyageai.com", "api.z.ai", "open.bigmodel.cn", "api.minimax.io", "api.githubcopilot.com",
    ]  # fmt: skip
    for host in examples:
        (row,) = [row for row in hosts.API_HOSTS if re.fullmatch(row.pattern, host)]
        listed = bundled.find_provider(None, host)
        assert listed in {None, bundled.find_provider(row.provider)}, host
        assert all(bundled.find_provider(other) for other in row.also)


@pytest.mark.parametrize(
    "host", ["openai.com.evil.example", "api.openai.com.internal", "notapi.openai.com.example", "xapi.groq.com"]
)
def test_a_host_that_only_looks_like_an_api_is_none(one, host):
    row = one({"server.address": host, **QWEN})
    assert row["provider"] in {hosts.OURS, hosts.COMPATIBLE}


@pytest.mark.parametrize(
    "host",
    ["10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.1.5", "100.64.0.9", "169.254.1.1", "127.0.0.1", "localhost",
     "[fd12:3456::1]", "::1", "llm", "llm.internal", "qwen.prod.svc.cluster.local", "gpu7.lan", "qwen.prod.svc"],
)  # fmt: skip
def test_what_answers_inside_our_network_is_ours_and_costs_no_list_price(one, host):
    row = one({"server.address": host, **QWEN})
    assert (row["billing"], row["provider"]) == ("self_hosted", hosts.OURS)
    assert (row["billed_cost_usd"], row["list_cost_usd"], row["price_status"]) == (0, None, "not_billed")


@pytest.mark.parametrize("host", ["172.15.0.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "8.8.8.8", "llm.acme.example"])
@pytest.mark.parametrize("model", [QWEN, GPT], ids=["open", "closed"])
@pytest.mark.parametrize("told", ["openai", None, "litellm", "openai_compatible"])
def test_a_host_that_nobody_knows_is_never_billed_at_the_list_price_of_another(one, host, model, told):
    row = one({"server.address": host, "gen_ai.provider.name": told, **model})
    assert (row["billing"], row["provider"]) == ("api", hosts.COMPATIBLE)
    assert [row[name] for name in record.MONEY] == [None] * len(record.MONEY)
    assert row["price_status"] == "unpriced"


def test_what_we_serve_ourselves_keeps_the_price_that_its_maker_would_ask(one):
    model = {"gen_ai.request.model": "gpt-oss-120b", "gen_ai.response.model": "gpt-oss-120b"}
    row = one({"server.address": "10.0.0.3", **model})
    assert row["list_cost_usd"] > 0
    assert (row["billing"], row["billed_cost_usd"], row["price_status"]) == ("self_hosted", 0, "not_billed")


@pytest.mark.parametrize("host", ["gateway.internal", "10.0.0.9", "gateway"])
def test_a_model_that_nobody_can_run_stands_behind_a_gateway_and_its_price_is_unknown(one, host):
    row = one({"server.address": host, **GPT})
    assert (row["billing"], row["provider"], row["price_status"]) == ("api", hosts.COMPATIBLE, "unpriced")
    assert row["billed_cost_usd"] is None


def test_beside_the_app_a_closed_model_is_its_makers_and_an_open_one_ours(one):
    proxied = one({"server.address": "127.0.0.1", "server.port": 4000, **GPT})
    assert (proxied["billing"], proxied["provider"], proxied["price_status"]) == ("api", "openai", "priced")
    assert one({"server.address": "127.0.0.1", **QWEN})["billing"] == "self_hosted"


def test_a_provider_that_is_no_wire_format_is_believed_behind_a_gateway(one):
    row = one({"server.address": "gateway.internal", "gen_ai.provider.name": "anthropic", **CLAUDE})
    assert (row["provider"], row["billing"], row["price_status"]) == ("anthropic", "api", "priced")


def test_without_a_host_what_was_told_stands(one):
    row = one({"server.address": None, **GPT})
    assert (row["provider"], row["billing"], row["price_status"]) == ("openai", "api", "priced")


@pytest.mark.parametrize(
    ("attributes", "resource", "engine"),
    [
        ({"server.address": "vllm-qwen.prod.svc.cluster.local"}, {}, "vllm"),
        ({"server.address": "sglang", "millicent.engine": "vllm"}, {}, "vllm"),
        ({"server.address": "localhost", "gen_ai.provider.name": "ollama"}, {}, "ollama"),
        ({"gen_ai.provider.name": "hosted_vllm"}, {}, "vllm"),
        ({"server.address": "10.0.0.3"}, {"service.name": "sglang-router"}, "sglang"),
        ({"server.address": "10.0.0.3"}, {"service.name": "my-vllm-app"}, None),
        ({"server.address": "trtllm.acme.example"}, {}, "tensorrt-llm"),
        ({"server.address": "notvllm.internal"}, {}, None),
    ],
)
def test_an_engine_is_known_by_name(one, attributes, resource, engine):
    row = one({**QWEN, **attributes}, resource=resource)
    assert row["engine"] == engine
    assert row["billing"] == "self_hosted"


def test_an_engine_in_a_name_means_nothing_at_a_known_api(one):
    row = one({"server.address": "api.openai.com", **GPT}, resource={"service.name": "vllm"})
    assert (row["engine"], row["billing"]) == (None, "api")


# ---- resource tags and known APIs

RACK = {"millicent.accelerator": "nvidia-h100-sxm", "millicent.deployment": "chat-h100", "millicent.engine": "vllm",
        "millicent.accelerator_count": 8, "millicent.precision": "fp8", "millicent.environment": "prod"}  # fmt: skip


@pytest.mark.parametrize("deployments", [(), (H100,)], ids=["undeclared", "declared"])
def test_an_api_call_of_a_service_that_runs_models_too_is_the_apis(one, deployments):
    row = one({"server.address": "api.openai.com", **GPT}, resource=RACK, deployments=deployments)
    assert (row["billing"], row["price_status"], row["environment"]) == ("api", "priced", "prod")
    assert [row[name] for name in ("deployment", "engine", "accelerator", "accelerator_count", "precision")] == [
        None
    ] * 5
    assert row["tag_sources"] == "environment:resource"


def test_what_stands_on_the_call_itself_is_believed_even_there(one):
    row = one({"server.address": "api.together.xyz", "millicent.deployment": "chat-h100"}, deployments=[H100])
    assert (row["deployment"], row["billing"], row["accelerator"]) == ("chat-h100", "self_hosted", "nvidia-h100-sxm")


def test_a_declared_host_is_ours_wherever_it_is(one):
    ours = Deployment(**{name: getattr(H100, name) for name in H100.__slots__} | {"endpoints": ("api.groq.com:443",)})
    row = one({"server.address": "https://api.groq.com:443/v1", **QWEN}, deployments=[ours])
    assert (row["deployment"], row["billing"], row["engine"]) == ("chat-h100", "self_hosted", "vllm")


hosts_ = st.sampled_from(
    ["api.openai.com", "llm.acme.example:8000", "10.0.0.3", "localhost", "vllm.internal", None, "gw"]
)
tags = st.fixed_dictionaries({}, optional={key: st.just(value) for key, value in RACK.items()})


@settings(max_examples=40)
@given(hosts_, st.sampled_from([QWEN, GPT, CLAUDE]), st.sampled_from(["openai", "anthropic", "vllm", None]), tags, tags)
def test_deciding_who_served_twice_is_deciding_once(otlp, host, model, provider, attributes, resource):
    call = otlp.span({"server.address": host, "gen_ai.provider.name": provider, **model, **attributes})
    once = otlp.run(otlp.request(call, resource=resource), deployments=[H100]).spans
    again = attribution.placed(once, [("acme", H100)])
    assert again.select(once.columns).equals(once)


# ---- rules


def ruled(*told):
    return [("acme", rules.read(rule)) for rule in told]


def through(otlp, rule, *spans, resource=(), deployments=()):
    """Rows of `spans` with `rule` in force from the request on."""
    declared = [("acme", one) for one in deployments]
    context = Context(PriceBook.bundled(), declared, lambda keys: pl.repeat(False, keys.height, eager=True), rule)
    sent = Incoming(otlp.request(*spans, resource=resource), "acme", "key-1", otlp.NOW)
    return pipeline.run([sent], context).spans


def when(field, sets, **more):
    """A rule that holds where `service` is `field`."""
    return {"when": [{"field": "service", "is": field}], "sets": sets, **more}


@pytest.fixture(scope="module")
def call(otlp):
    """The frame of one call of service checkout, which tells no team unless asked to."""

    def frame(attributes=(), resource=(), **fields):
        body = otlp.request(otlp.span(attributes, **fields), resource={"service.name": "checkout", **dict(resource)})
        return otlp.run(body).spans

    return frame


def test_a_rule_fills_in_what_is_not_told_and_says_so(call):
    row = attribution.apply_rules(call(), ruled(when("checkout", {"team": "Payments", "feature": "cart"}))).to_dicts()[
        0
    ]
    assert (row["team"], row["feature"], row["identity_source"]) == ("Payments", "cart", "rule")
    assert row["tag_sources"] == "feature:rule,team:rule"


def test_a_rule_leaves_what_is_told_unless_it_overrides(call):
    told = call({"millicent.team": "search"}, {"millicent.project": "p"})
    sets = {"team": "Payments", "project": "q", "feature": "f"}
    row = attribution.apply_rules(told, ruled(when("checkout", sets))).to_dicts()[0]
    assert (row["team"], row["project"], row["feature"]) == ("search", "p", "f")
    assert (row["tag_sources"], row["identity_source"]) == ("feature:rule,project:resource", "span")
    row = attribution.apply_rules(told, ruled(when("checkout", sets, override=True))).to_dicts()[0]
    assert (row["team"], row["project"], row["identity_source"]) == ("Payments", "q", "rule")
    assert row["tag_sources"] == "feature:rule,project:rule,team:rule"
    assert row["labels"] == [
        {"key": "told:span:team", "value": "search"},
        {"key": "told:resource:project", "value": "p"},
    ]


def test_the_first_rule_that_may_set_a_tag_decides_it_each_tag_for_itself(call):
    three = ruled(
        when("other", {"team": "never"}),
        when("checkout", {"team": "first"}),
        when("checkout", {"team": "second", "feature": "f"}, override=True),
    )
    assert attribution.apply_rules(call(), three).select("team", "feature").row(0) == ("first", "f")
    told = attribution.apply_rules(call({"millicent.team": "told"}), three)
    assert told["team"].to_list() == ["second"]  # the first that holds may not replace what was told


def test_a_value_that_is_there_anyway_keeps_its_source(call):
    told = call({"millicent.team": "Payments"})
    assert attribution.apply_rules(told, ruled(when("checkout", {"team": "Payments"}, override=True))).equals(told)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"field": "service", "is": ["cart", "checkout"]}, True),
        ({"field": "service", "is": "Checkout"}, False),
        ({"field": "service", "matches": "eck"}, True),
        ({"field": "service", "matches": "^eck"}, False),
        ({"field": "service", "matches": "(?i)^CHECKOUT$"}, True),
        ({"field": "customer", "matches": ".*"}, False),
        ({"field": "customer", "absent": True}, True),
        ({"field": "service", "absent": True}, False),
        ({"field": "key_id", "is": "key-1"}, True),
        ({"field": "attribute:http.route", "matches": "^/pay"}, True),
        ({"field": "attribute:retries", "is": "3"}, True),
        ({"field": "attribute:server.port", "is": "443"}, True),
        ({"field": "attribute:millicent.label.desk", "is": "fx"}, True),
        ({"field": "resource:k8s.namespace.name", "is": "shop"}, True),
        ({"field": "attribute:k8s.namespace.name", "absent": True}, True),
        ({"field": "attribute:k8s.namespace.name", "is": "shop"}, False),
    ],
)
def test_a_condition_holds_or_not(otlp, condition, holds):
    rule = ruled({"when": [condition], "sets": {"team": "x"}})
    spans = through(
        otlp, rule,
        otlp.span({"http.route": "/pay/1", "retries": 3, "millicent.label.desk": "fx", "server.port": 443,
                   "server.address": "api.openai.com"}),
        resource={"service.name": "checkout", "k8s.namespace.name": "shop"},
    )  # fmt: skip
    assert spans["team"].to_list() == ["x" if holds else None]


def test_all_conditions_must_hold(call):
    both = [{"field": "service", "is": "checkout"}, {"field": "environment", "is": "prod"}]
    rule = ruled({"when": both, "sets": {"team": "x"}})
    assert attribution.apply_rules(call(), rule)["team"].to_list() == [None]
    assert attribution.apply_rules(call({"millicent.environment": "prod"}), rule)["team"].to_list() == ["x"]


@pytest.mark.parametrize(
    ("since", "until", "holds"),
    [(12, None, True), (13, None, False), (None, 12, False), (None, 13, True), (12, 13, True)],
)
def test_a_rule_holds_from_its_first_instant_up_to_its_last(call, since, until, holds):
    bounds = {
        name: f"2026-11-20T{hour}:00:00Z"
        for name, hour in (("effective_from", since), ("effective_to", until))
        if hour is not None
    }
    found = attribution.apply_rules(call(), ruled(when("checkout", {"team": "x"}, **bounds)))  # began at 12:00
    assert found["team"].to_list() == ["x" if holds else None]


def test_rules_of_another_tenant_do_nothing(call):
    rule = rules.read(when("checkout", {"team": "x"}))
    two = pl.concat([call(), call().with_columns(tenant=pl.lit("other"))])
    assert attribution.apply_rules(two, [("other", rule)])["team"].to_list() == [None, "x"]


def test_conditions_look_at_what_was_told_not_at_what_rules_set(call):
    chain = ruled(when("checkout", {"team": "a"}), {"when": [{"field": "team", "is": "a"}], "sets": {"feature": "f"}})
    assert attribution.apply_rules(call(), chain)["feature"].to_list() == [None]


def test_a_deployment_that_a_rule_names_brings_what_is_declared_of_it(call):
    told = call({"server.address": "llm.acme.example", "millicent.environment": "dev", **QWEN})
    rule = ruled(when("checkout", {"deployment": "chat-h100"}))
    row = attribution.apply_rules(told, rule, [("acme", H100)]).to_dicts()[0]
    declared = ("deployment", "engine", "accelerator", "accelerator_count", "environment", "billing")
    assert [row[name] for name in declared] == ["chat-h100", "vllm", "nvidia-h100-sxm", 8, "prod", "self_hosted"]
    assert {"key": "told:span:environment", "value": "dev"} in row["labels"]
    undeclared = attribution.apply_rules(told, rule).to_dicts()[0]
    assert (undeclared["deployment"], undeclared["billing"], undeclared["engine"]) == ("chat-h100", "self_hosted", None)


def test_a_rule_may_say_whose_price_list_holds_behind_a_gateway(otlp):
    gateway = ruled({"when": [{"field": "endpoint_host", "is": "gateway.internal"}], "sets": {"provider": "openai"},
                     "override": True})  # fmt: skip
    spans = through(otlp, gateway, otlp.span({"server.address": "gateway.internal", **GPT}))
    row = spans.to_dicts()[0]
    assert (row["provider"], row["billing"], row["price_status"]) == ("openai", "api", "priced")
    assert row["billed_cost_usd"] == Decimal("0.0035")


def test_rules_look_at_calls_as_they_will_be_stored(otlp):
    ours = Deployment(**{name: getattr(H100, name) for name in H100.__slots__} | {"endpoints": ("llm.acme.example",)})
    conditions = [{"field": "provider", "is": hosts.OURS}, {"field": "deployment", "is": "chat-h100"},
                  {"field": "endpoint_host", "is": "llm.acme.example"}, {"field": "engine", "is": "vllm"}]  # fmt: skip
    rule = ruled({"when": conditions, "sets": {"team": "ML", "environment": "night"}, "override": True})
    sent = otlp.span({"server.address": "https://LLM.acme.example/v1", **QWEN})
    row = through(otlp, rule, sent, deployments=[ours]).to_dicts()[0]
    assert (row["team"], row["environment"], row["billing"]) == ("ML", "night", "self_hosted")


def test_what_a_rule_says_of_the_provider_wins_over_the_address_even_when_placed_again(call):
    told = call({"server.address": "10.0.0.9", **QWEN})
    assert told["billing"].to_list() == ["self_hosted"]
    rule = ruled(when("checkout", {"provider": "openai"}, override=True))
    found = attribution.apply_rules(told, rule)
    assert found.select("provider", "billing").row(0) == ("openai", "api")
    assert attribution.placed(found, []).select(found.columns).equals(found)


# ---- rules again

names = st.sampled_from(["a", "b", None])
some_rules = st.lists(
    st.fixed_dictionaries(
        {"when": st.lists(
            st.sampled_from([{"field": "service", "is": "checkout"}, {"field": "team", "absent": True},
                             {"field": "team", "is": ["a"]}, {"field": "attribute:millicent.label.x", "is": "y"}]),
            min_size=1, max_size=2),
         "sets": st.dictionaries(st.sampled_from(rules.SETTABLE), st.sampled_from(["a", "b", "chat-h100"]), min_size=1),
         "override": st.booleans()}
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=40)
@given(some_rules, some_rules, names, names)
def test_applying_rules_forgets_nothing_and_can_be_done_again(call, first, then, on_span, on_resource):
    told = call({"millicent.team": on_span, "millicent.label.x": "y"}, {"millicent.project": on_resource, "team": "b"})
    deployments = [("acme", H100)]
    once = attribution.apply_rules(told, ruled(*first), deployments)
    assert attribution.apply_rules(once, ruled(*first), deployments).equals(once)
    assert attribution.placed(once, deployments).select(once.columns).equals(once)
    changed = attribution.apply_rules(once, ruled(*then), deployments)
    assert changed.equals(attribution.apply_rules(told, ruled(*then), deployments))
    assert attribution.apply_rules(changed, [], deployments).equals(told)


def test_what_rules_look_at_is_kept_for_tenants_that_have_the_rule(otlp):
    rule = ruled({"when": [{"field": "attribute:http.route", "is": "/pay"}, {"field": "resource:k8s.pod", "is": "p"}],
                  "sets": {"team": "x"}})  # fmt: skip
    assert attribution.rule_keys(rule) == ("http.route", "resource:k8s.pod")
    label = ruled({"when": [{"field": "attribute:millicent.label.a", "is": "b"}], "sets": {"team": "x"}})
    assert attribution.rule_keys(label) == ()
    frame = pl.DataFrame(
        {"tenant": ["acme", "other", "acme"], "http.route": ["/pay", "/pay", None],
         "resource:k8s.pod": ["p", None, None], "labels": [None, None, [{"key": "a", "value": "b"}]]},
    )  # fmt: skip
    kept = attribution.keep_attributes(frame, rule)["labels"].to_list()
    assert kept == [[{"key": "http.route", "value": "/pay"}, {"key": "resource:k8s.pod", "value": "p"}], None,
                    [{"key": "a", "value": "b"}]]  # fmt: skip


def test_how_far_a_rule_reaches_is_counted(call):
    frame = pl.concat([call(), call({"millicent.team": "told"}), call(resource={"service.name": "other"})])
    three = ruled(
        when(["checkout", "other"], {"team": "a"}), when("checkout", {"team": "b"}), when("nobody", {"team": "c"})
    )
    found = [(rule.sets["team"], holds, decides) for rule, holds, decides in attribution.reached(frame, three)]
    assert found == [("a", 3, 2), ("b", 2, 0)]
