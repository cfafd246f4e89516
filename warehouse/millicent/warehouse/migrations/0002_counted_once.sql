-- What counting each call once needs: who told of it, what joins two tellings, and what counting changed.

ALTER TABLE calls ADD COLUMN request_id UBIGINT;
ALTER TABLE calls ADD COLUMN signal VARCHAR DEFAULT 'span';
ALTER TABLE calls ADD COLUMN tag_sources VARCHAR;
ALTER TABLE calls ADD COLUMN call_count BIGINT DEFAULT 1;
ALTER TABLE calls ADD COLUMN sample_weight DOUBLE;
ALTER TABLE calls ADD COLUMN counted_as_trace_id UUID;

ALTER TABLE usage_hourly ADD COLUMN signal VARCHAR DEFAULT 'span';
ALTER TABLE usage_hourly ADD COLUMN row_count BIGINT; -- rows of calls in these sums; less the nulls, how many are known
UPDATE usage_hourly SET row_count = calls;

-- Calls as their own span told them, where counting changed what `calls` says; kept for a week.
CREATE TABLE told AS FROM calls LIMIT 0;

-- Spans that are no calls, for the structure and the tags that they give to those below them; kept for a week.
CREATE TABLE edges (
    tenant VARCHAR NOT NULL,
    trace_id UUID NOT NULL,
    span_id UBIGINT NOT NULL,
    parent_span_id UBIGINT,
    received_at TIMESTAMP NOT NULL,
    started_at TIMESTAMP NOT NULL,
    duration_ms BIGINT,
    service VARCHAR,
    environment VARCHAR,
    team VARCHAR,
    project VARCHAR,
    feature VARCHAR,
    customer VARCHAR,
    user_id VARCHAR,
    session_id VARCHAR,
    deployment VARCHAR,
    engine VARCHAR,
    accelerator VARCHAR,
    accelerator_count INTEGER,
    precision VARCHAR,
    region VARCHAR,
    tag_sources VARCHAR
);

-- How far each cumulative metric has been read, by series: what it said last.
CREATE TABLE series (
    tenant VARCHAR NOT NULL,
    series UUID NOT NULL, -- hash of resource, scope, metric, attributes and start
    last_at TIMESTAMP NOT NULL,
    value BIGINT NOT NULL,
    count BIGINT NOT NULL,
    seen_at TIMESTAMP NOT NULL
);
