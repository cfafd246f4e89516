-- What the price book needs: other billable units, what was asked for that has a price of its own, amounts that belong
-- to no call, and what repricing changed.

ALTER TABLE calls ADD COLUMN price_context VARCHAR;
ALTER TABLE calls ADD COLUMN units MAP(VARCHAR, BIGINT);
ALTER TABLE calls ADD COLUMN list_units_usd DECIMAL(18, 12);
UPDATE calls SET list_units_usd = 0 WHERE list_cost_usd IS NOT NULL;

ALTER TABLE told ADD COLUMN price_context VARCHAR;
ALTER TABLE told ADD COLUMN units MAP(VARCHAR, BIGINT);
ALTER TABLE told ADD COLUMN list_units_usd DECIMAL(18, 12);
UPDATE told SET list_units_usd = 0 WHERE list_cost_usd IS NOT NULL;

ALTER TABLE usage_hourly ADD COLUMN list_units_usd DECIMAL(38, 12);
ALTER TABLE usage_hourly ADD COLUMN list_units_usd_nulls BIGINT;
UPDATE usage_hourly SET
    list_units_usd = CASE WHEN list_cost_usd IS NOT NULL THEN 0 END,
    list_units_usd_nulls = list_cost_usd_nulls;

-- Amounts that belong to no call: adjustments of closed periods, fees, commitments, discounts by volume, credits.
CREATE TABLE charges (
    tenant VARCHAR NOT NULL,
    charged_at TIMESTAMP NOT NULL, -- the hour in whose sums it is
    type VARCHAR NOT NULL, -- adjustment, fee, commitment, volume or credit
    name VARCHAR NOT NULL,
    entry BIGINT, -- price entry that asks for it
    run BIGINT, -- repricing that it adjusts for
    period_start TIMESTAMP NOT NULL,
    period_end TIMESTAMP NOT NULL,
    provider VARCHAR,
    model VARCHAR,
    team VARCHAR,
    project VARCHAR,
    feature VARCHAR,
    customer VARCHAR,
    environment VARCHAR,
    service VARCHAR,
    deployment VARCHAR,
    list_usd DECIMAL(38, 12) NOT NULL,
    billed_usd DECIMAL(38, 12) NOT NULL,
    provisional BOOLEAN NOT NULL,
    why VARCHAR NOT NULL,
    computed_at TIMESTAMP NOT NULL
);

-- What was said of prices beside their amounts; a few rows that many calls share.
CREATE TABLE price_words (
    id BIGINT NOT NULL,
    price_status VARCHAR NOT NULL,
    price_entry VARCHAR,
    price_version VARCHAR
);

-- Amounts of calls as they were before a repricing, by run.
CREATE TABLE repriced_amounts (
    run BIGINT NOT NULL,
    tenant VARCHAR NOT NULL,
    started_at TIMESTAMP NOT NULL,
    trace_id UUID NOT NULL,
    span_id UBIGINT NOT NULL,
    list_cost_usd DECIMAL(18, 12),
    list_input_usd DECIMAL(18, 12),
    list_cache_read_usd DECIMAL(18, 12),
    list_cache_write_usd DECIMAL(18, 12),
    list_output_usd DECIMAL(18, 12),
    list_units_usd DECIMAL(18, 12),
    billed_cost_usd DECIMAL(18, 12),
    cache_saving_usd DECIMAL(18, 12),
    words BIGINT NOT NULL
);

-- Price columns of calls as they were before a repricing.
CREATE VIEW repriced AS
SELECT a.* EXCLUDE (words), w.price_status, w.price_entry, w.price_version
FROM repriced_amounts AS a JOIN price_words AS w ON w.id = a.words;

-- Which days a repricing has been through, and what it made of them.
CREATE TABLE repricing_days (
    run BIGINT NOT NULL,
    tenant VARCHAR NOT NULL,
    day TIMESTAMP NOT NULL,
    calls BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    list_usd_before DECIMAL(38, 12),
    list_usd_after DECIMAL(38, 12),
    billed_usd_before DECIMAL(38, 12),
    billed_usd_after DECIMAL(38, 12),
    adjusted BOOLEAN NOT NULL, -- the day is closed: the difference became charges
    done_at TIMESTAMP NOT NULL
);
