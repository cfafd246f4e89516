-- What own hardware really costs: pools, evidence, outages, energy and carbon by caller, meters, idle by policy.
-- Hours of open periods are computed again by what they say now; those of closed periods stay as they are.

ALTER TABLE deployment_hours ADD COLUMN pool VARCHAR; -- accelerators that deployments share; its own name where none
ALTER TABLE deployment_hours ADD COLUMN contract VARCHAR; -- reservation that pays for it
ALTER TABLE deployment_hours ADD COLUMN owner VARCHAR; -- team that answers for it
ALTER TABLE deployment_hours ADD COLUMN unavailable_ms BIGINT; -- of the pool: loading, compiling, failure
ALTER TABLE deployment_hours ADD COLUMN unobserved_ms BIGINT; -- of the pool: nobody saw what ran
-- Accelerator time, the deployment's share of its pool.
ALTER TABLE deployment_hours ADD COLUMN busy_accelerator_ms BIGINT;
ALTER TABLE deployment_hours ADD COLUMN unavailable_accelerator_ms BIGINT;
ALTER TABLE deployment_hours ADD COLUMN unobserved_accelerator_ms BIGINT;
ALTER TABLE deployment_hours ADD COLUMN unused_accelerator_ms BIGINT; -- reserved, and no deployment took it
ALTER TABLE deployment_hours ADD COLUMN unavailable_usd DECIMAL(38, 24);
-- What of electricity, energy and carbon went to calls, to outages, and to what nobody saw; the rest is idle.
ALTER TABLE deployment_hours ADD COLUMN busy_energy_usd DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN unavailable_energy_usd DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN untracked_energy_usd DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN busy_joules DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN unavailable_joules DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN untracked_joules DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN busy_gco2e_g DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN unavailable_gco2e_g DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN untracked_gco2e_g DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN gco2e_market_g DECIMAL(38, 6);
ALTER TABLE deployment_hours ADD COLUMN busy_gco2e_market_g DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN unavailable_gco2e_market_g DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN untracked_gco2e_market_g DECIMAL(38, 24);
-- Rates of output; those without "output" in their name are of input. Both are unknown while nothing was served.
ALTER TABLE deployment_hours ADD COLUMN output_rate_usd_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN output_energy_rate_usd_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN joules_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN output_joules_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN gco2e_g_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN output_gco2e_g_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN gco2e_market_g_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN output_gco2e_market_g_per_weight DECIMAL(38, 24);
ALTER TABLE deployment_hours ADD COLUMN energy_source VARCHAR; -- measured or modelled
ALTER TABLE deployment_hours ADD COLUMN busy_source VARCHAR; -- engine or calls
-- Tokens of calls that we know of, and what the engine's own counters rose by; NULL where they do not cover the hour.
ALTER TABLE deployment_hours ADD COLUMN input_tokens BIGINT;
ALTER TABLE deployment_hours ADD COLUMN cached_tokens BIGINT;
ALTER TABLE deployment_hours ADD COLUMN output_tokens BIGINT;
ALTER TABLE deployment_hours ADD COLUMN engine_input_tokens BIGINT;
ALTER TABLE deployment_hours ADD COLUMN engine_output_tokens BIGINT;
ALTER TABLE deployment_hours ADD COLUMN policy BIGINT; -- allocation policy in force; NULL for the built-in one
ALTER TABLE deployment_hours ADD COLUMN computed_from VARCHAR; -- digest of everything declared that it depends on

UPDATE deployment_hours SET
    pool = deployment,
    unavailable_ms = 0,
    unobserved_ms = 0,
    busy_accelerator_ms = busy_ms * accelerator_count,
    unavailable_accelerator_ms = 0,
    unobserved_accelerator_ms = 0,
    unused_accelerator_ms = 0,
    unavailable_usd = 0,
    idle_usd = idle_usd - untracked_usd,
    busy_energy_usd = coalesce(weight * energy_rate_usd_per_weight, 0),
    unavailable_energy_usd = 0,
    untracked_energy_usd = 0,
    output_rate_usd_per_weight = rate_usd_per_weight,
    output_energy_rate_usd_per_weight = energy_rate_usd_per_weight,
    energy_source = 'modelled',
    busy_source = 'calls';

-- Idle and unavailable cost of an hour that teams carry, where the policy is not to show it as a line of its own.
CREATE TABLE idle_shares (
    tenant VARCHAR NOT NULL,
    deployment VARCHAR NOT NULL,
    hour TIMESTAMP NOT NULL,
    kind VARCHAR NOT NULL, -- idle or unavailable
    team VARCHAR, -- NULL: nobody could carry it, it stays a line of its own
    usd DECIMAL(38, 24) NOT NULL
);

-- What meters of engines and accelerators told, by the hour in which it happened; rows of one hour add up.
CREATE TABLE meter_hours (
    tenant VARCHAR NOT NULL,
    deployment VARCHAR NOT NULL,
    hour TIMESTAMP NOT NULL,
    source VARCHAR NOT NULL, -- id of the engine, dcgm or nvml
    role VARCHAR, -- prefill or decode, where they are apart
    observed_ms BIGINT, -- its state was known
    busy_ms BIGINT,
    unavailable_ms BIGINT,
    counted_ms BIGINT, -- its counters were read across this time
    gap_ms BIGINT, -- what of it lay between readings too far apart to say when
    prompt_tokens BIGINT, -- as its own counter has them; NULL where it does not tell
    cached_tokens BIGINT,
    output_tokens BIGINT,
    prefill_us BIGINT,
    decode_us BIGINT,
    requests BIGINT,
    millijoules BIGINT,
    resets BIGINT,
    read_at TIMESTAMP NOT NULL
);

-- The last reading of every counter, to go on from.
CREATE TABLE meter_series (
    tenant VARCHAR NOT NULL,
    deployment VARCHAR NOT NULL,
    source VARCHAR NOT NULL,
    role VARCHAR,
    counter VARCHAR NOT NULL,
    series VARCHAR NOT NULL,
    started TIMESTAMP,
    read_at TIMESTAMP NOT NULL,
    value BIGINT NOT NULL
);

-- Adjustments of closed periods by what own hardware carried of them.
ALTER TABLE charges ADD COLUMN hardware_usd DECIMAL(38, 24);
ALTER TABLE charges ADD COLUMN energy_usd DECIMAL(38, 24);
ALTER TABLE charges ADD COLUMN idle_usd DECIMAL(38, 24);
