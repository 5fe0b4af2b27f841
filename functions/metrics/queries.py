"""What is asked of the warehouse. Names that become part of the SQL come from here, values travel as parameters."""

from collections.abc import Mapping
from typing import Any, get_args

from functions.metrics import warehouse
from functions.metrics.schemas import Distribution, GroupBy, Measured, Source, Usage, UsageGroup

_GROUPS: dict[GroupBy, str] = {
    "endpoint": "toString(endpoint)",
    "key": "toString(key_id)",
    "model": "toString(model)",
    "hour": "toString(toUnixTimestamp(hour) * 1000)",
}
_SUMS = """
    sum(requests) AS n_requests, sum(failed) AS n_failed, sum(input_tokens) AS n_input_tokens,
    sum(output_tokens) AS n_output_tokens, sum(cached_tokens) AS n_cached_tokens,
    sum(wasted_tokens) AS n_wasted_tokens, sum(cost_nanos) AS n_cost_nanos,
    sum(ttft_samples) AS ttft_n, sum(ttft_sum_ms) AS ttft_sum, quantilesTDigestMerge(0.5, 0.95, 0.99)(ttft_ms) AS ttft,
    sum(tpot_samples) AS tpot_n, sum(tpot_sum_ms) AS tpot_sum, quantilesTDigestMerge(0.5, 0.95, 0.99)(tpot_ms) AS tpot
"""
_WITHIN = """
    FROM usage_hourly FINAL WHERE project_id = {project_id:String}
    AND hour >= toDateTime({from_s:UInt32}, 'UTC') AND hour < toDateTime({to_s:UInt32}, 'UTC')
"""
_MEASURED = """
    SELECT toString(source) AS source, count() AS samples, min(ts_ms) AS from_ms, max(ts_ms) AS to_ms,
        sum(output_tokens) AS output_tokens, sum(e2e_ms) AS in_flight_ms,
        intervalLengthSum(ts_ms, ts_ms + toInt64(ceil(e2e_ms))) AS busy_ms,
        count(ttft_ms) AS ttft_n, sum(ttft_ms) AS ttft_sum,
        quantilesTDigestIf(0.5, 0.95, 0.99)(assumeNotNull(ttft_ms), ttft_ms IS NOT NULL) AS ttft,
        count(tpot_ms) AS tpot_n, sum(tpot_ms) AS tpot_sum,
        quantilesTDigestIf(0.5, 0.95, 0.99)(assumeNotNull(tpot_ms), tpot_ms IS NOT NULL) AS tpot
    FROM (
        SELECT source, ts_ms, output_tokens, assumeNotNull(e2e_ms) AS e2e_ms, ttft_ms, tpot_ms FROM requests FINAL
        WHERE project_id = {project_id:String} AND deployment_id = {deployment_id:String} AND outcome = 'ok'
            AND e2e_ms IS NOT NULL AND ts_ms >= {from_ms:Int64} AND ts_ms < {to_ms:Int64}
            AND hour >= toStartOfHour(toDateTime(intDiv({from_ms:Int64}, 1000), 'UTC'))
    ) GROUP BY source
"""
_USED = """
    SELECT count() AS n FROM requests WHERE project_id = {project_id:String} AND deployment_id = {deployment_id:String}
    AND ts_ms + toInt64(ceil(ifNull(e2e_ms, 0))) > {since_ms:Int64}
    AND hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC')) - INTERVAL 1 HOUR
"""
Hours = Mapping[str, Any]


def total(hours: Hours) -> Usage:
    """``hours``: project_id, from_s and to_s."""
    rows = list(warehouse.query(f"SELECT {_SUMS} {_WITHIN}", dict(hours)))
    return Usage(**_usage(rows[0]))


def groups(hours: Hours, by: GroupBy, offset: int, limit: int) -> list[UsageGroup]:
    """Hours in order of time, everything else by cost, most expensive first."""
    order = "min(hour)" if by == "hour" else "n_cost_nanos DESC, name"
    sql = f"""
        SELECT {_GROUPS[by]} AS name, {_SUMS} {_WITHIN} GROUP BY name ORDER BY {order}
        LIMIT {{limit:UInt32}} OFFSET {{offset:UInt32}}
    """
    rows = warehouse.query(sql, {**hours, "limit": limit, "offset": offset})
    return [UsageGroup(group=row["name"], **_usage(row)) for row in rows]


def measured(project_id: str, deployment_id: str, from_ms: int, to_ms: int) -> list[Measured]:
    """Completed requests of a deployment, by source."""
    values = {"project_id": project_id, "deployment_id": deployment_id, "from_ms": from_ms, "to_ms": to_ms}
    return [_measured(row) for row in warehouse.query(_MEASURED, values) if row["source"] in get_args(Source)]


def used_since(project_id: str, deployment_id: str, since_ms: int) -> bool:
    """Whether a request to it ended after that, or came; copies of requests (shadows) count."""
    values = {"project_id": project_id, "deployment_id": deployment_id, "since_ms": since_ms}
    return any(row["n"] for row in warehouse.query(_USED, values))


def _usage(row: dict[str, Any]) -> dict[str, Any]:
    sums = {name.removeprefix("n_"): int(value) for name, value in row.items() if name.startswith("n_")}
    return {**sums, "ttft_ms": _distribution(row, "ttft"), "tpot_ms": _distribution(row, "tpot")}


def _distribution(row: dict[str, Any], name: str) -> Distribution | None:
    samples = int(row[f"{name}_n"])
    if not samples:
        return None
    p50, p95, p99 = (float(value) for value in row[name])
    return Distribution(samples=samples, mean=float(row[f"{name}_sum"]) / samples, p50=p50, p95=p95, p99=p99)


def _measured(row: dict[str, Any]) -> Measured:
    return Measured(
        source=row["source"], samples=row["samples"], from_ms=row["from_ms"], to_ms=row["to_ms"],
        ttft_ms=_distribution(row, "ttft"), tpot_ms=_distribution(row, "tpot"), output_tokens=row["output_tokens"],
        busy_ms=row["busy_ms"], in_flight_ms=row["in_flight_ms"],
    )  # fmt: skip
