"""One metering row per request, whatever became of it (docs/gateway.md: metering row)."""

import msgspec


class Row(msgspec.Struct):
    event_id: str
    ts_ms: int
    gateway_id: str
    project_id: str = ""
    key_id: str = ""
    endpoint: str = ""
    deployment_id: str = ""
    model: str = ""
    provider: str = ""
    route: str = ""
    stream: bool = False
    status: int = 0
    outcome: str = "ok"
    error_code: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usage_source: str = "none"
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float = 0.0
    queue_ms: float = 0.0
    cost_nanos: int = 0
    retries: int = 0
    wasted_tokens: int = 0
    source: str = "live"
    request_id: str = ""


encode_rows = msgspec.json.Encoder().encode_lines
