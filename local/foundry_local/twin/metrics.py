"""vLLM's Prometheus metrics: the names, labels, buckets and meaning of vllm/v1/metrics/loggers.py."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_PER_TOKEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_LATENCY = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
_ITERATION = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
_N = (1.0, 2.0, 5.0, 10.0, 20.0)
FINISHED_REASONS = ("stop", "length", "abort", "error", "repetition")


def one_two_five(limit: int) -> tuple[float, ...]:
    """Buckets 1, 2, 5, 10, 20, … up to a limit."""
    buckets: list[float] = []
    scale = 1
    while True:
        for digit in (1, 2, 5):
            if digit * scale > limit:
                return tuple(buckets)
            buckets.append(float(digit * scale))
        scale *= 10


class Histogram:
    """Cumulative buckets on output, plain counts inside."""

    __slots__ = ("bounds", "count", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self.count = 0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.count += 1


class EngineMetrics:
    """The counters, gauges and histograms of one engine."""

    def __init__(self, model_name: str, max_model_len: int, started: float) -> None:
        self.model_name = model_name
        self.started = started
        self.running = 0
        self.waiting = 0
        self.kv_cache_usage = 0.0
        self.preemptions = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.finished = dict.fromkeys(FINISHED_REASONS, 0)
        by_length = one_two_five(max_model_len)
        self.ttft = Histogram(_TTFT)
        self.itl = Histogram(_PER_TOKEN)
        self.tpot = Histogram(_PER_TOKEN)
        self.e2e = Histogram(_LATENCY)
        self.queue = Histogram(_LATENCY)
        self.prefill = Histogram(_LATENCY)
        self.decode = Histogram(_LATENCY)
        self.inference = Histogram(_LATENCY)
        self.iteration_tokens = Histogram(_ITERATION)
        self.request_prompt_tokens = Histogram(by_length)
        self.request_generation_tokens = Histogram(by_length)
        self.request_max_tokens = Histogram(by_length)
        self.request_max_generation = Histogram(by_length)
        self.request_n = Histogram(_N)

    def render(self, cache: dict[str, str]) -> str:
        """The text exposition format; `cache` are the labels of `vllm:cache_config_info`."""
        return "\n".join(self._lines(cache)) + "\n"

    def _lines(self, cache: dict[str, str]) -> Iterator[str]:
        labels = f'engine="0",model_name="{_escape(self.model_name)}"'
        for name, text, value in self._gauges():
            yield from _single(name, text, "gauge", labels, value)
        for name, text, count in self._counters():
            yield from _single(f"{name}_total", text, "counter", labels, float(count))
        yield from self._success(labels)
        for name, text, histogram in self._histograms():
            yield from _histogram(name, text, labels, histogram)
        info = ",".join(f'{key}="{_escape(value)}"' for key, value in sorted((cache | {"engine": "0"}).items()))
        text = "Information of the LLMEngine CacheConfig"
        yield from _single("vllm:cache_config_info", text, "gauge", info, 1.0)

    def _gauges(self) -> list[tuple[str, str, float]]:
        return [
            ("vllm:num_requests_running", "Number of requests in model execution batches.", self.running),
            ("vllm:num_requests_waiting", "Number of requests waiting to be processed.", self.waiting),
            ("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", self.kv_cache_usage),
        ]

    def _counters(self) -> list[tuple[str, str, int]]:
        queries = "Prefix cache queries, in terms of number of queried tokens."
        return [
            ("vllm:prefix_cache_queries", queries, self.prefix_queries),
            ("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", self.prefix_hits),
            ("vllm:num_preemptions", "Cumulative number of preemption from the engine.", self.preemptions),
            ("vllm:prompt_tokens", "Number of prefill tokens processed.", self.prompt_tokens),
            ("vllm:generation_tokens", "Number of generation tokens processed.", self.generation_tokens),
        ]

    def _success(self, labels: str) -> Iterator[str]:
        yield "# HELP vllm:request_success_total Count of successfully processed requests."
        yield "# TYPE vllm:request_success_total counter"
        for reason, count in self.finished.items():
            yield f'vllm:request_success_total{{finished_reason="{reason}",{labels}}} {float(count)}'

    def _histograms(self) -> list[tuple[str, str, Histogram]]:
        histogram_text = "Histogram of time per output token in seconds."
        return [
            ("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", self.ttft),
            ("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", self.itl),
            # Deprecated since 0.11 in favour of inter_token_latency_seconds, still scraped by many dashboards.
            ("vllm:time_per_output_token_seconds", histogram_text, self.itl),
            ("vllm:request_time_per_output_token_seconds", histogram_text, self.tpot),
            ("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", self.e2e),
            ("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", self.queue),
            ("vllm:request_inference_time_seconds", "Histogram of time spent in RUNNING phase.", self.inference),
            ("vllm:request_prefill_time_seconds", "Histogram of time spent in PREFILL phase.", self.prefill),
            ("vllm:request_decode_time_seconds", "Histogram of time spent in DECODE phase.", self.decode),
            ("vllm:iteration_tokens_total", "Histogram of number of tokens per engine_step.", self.iteration_tokens),
            ("vllm:request_prompt_tokens", "Number of prefill tokens processed.", self.request_prompt_tokens),
            ("vllm:request_generation_tokens", "Number of tokens generated.", self.request_generation_tokens),
            ("vllm:request_params_max_tokens", "Histogram of the max_tokens parameter.", self.request_max_tokens),
            ("vllm:request_max_num_generation_tokens", "Maximum requested tokens.", self.request_max_generation),
            ("vllm:request_params_n", "Histogram of the n request parameter.", self.request_n),
        ]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _single(name: str, text: str, kind: str, labels: str, value: float) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield f"{name}{{{labels}}} {float(value)}"


def _histogram(name: str, text: str, labels: str, histogram: Histogram) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} histogram"
    running = 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        running += count
        edge = "+Inf" if bound == float("inf") else repr(bound)
        yield f'{name}_bucket{{{labels},le="{edge}"}} {float(running)}'
    yield f"{name}_count{{{labels}}} {float(histogram.count)}"
    yield f"{name}_sum{{{labels}}} {histogram.total!r}"
