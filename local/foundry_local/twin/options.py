"""vLLM's command line, as far as it decides timing, memory, names and access; the rest is accepted and ignored."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field


class OptionsError(ValueError):
    """The command line would make the real engine exit at once."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What was asked for. None means: the engine chooses by device and model."""

    model: str
    served_names: tuple[str, ...]
    port: int = 8000
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    memory_utilization: float = 0.9
    block_tokens: int = 16
    dtype: str = "auto"
    quantization: str = ""
    kv_cache_dtype: str = "auto"
    api_keys: tuple[str, ...] = ()
    seed: int = 0
    prefix_caching: bool = True
    eager: bool = False
    ignored: tuple[str, ...] = field(default=(), compare=False)


# Option names of vLLM, then of SGLang and trtllm-serve where they say the same thing otherwise.
_NAMES = {
    "--model": "model", "--model-path": "model",
    "--served-model-name": "served_names",
    "--port": "port",
    "--tensor-parallel-size": "tensor_parallel", "-tp": "tensor_parallel", "--tp-size": "tensor_parallel",
    "--tp": "tensor_parallel",
    "--pipeline-parallel-size": "pipeline_parallel", "-pp": "pipeline_parallel", "--pp-size": "pipeline_parallel",
    "--data-parallel-size": "data_parallel", "-dp": "data_parallel", "--dp-size": "data_parallel",
    "--max-model-len": "max_model_len", "--context-length": "max_model_len", "--max-seq-len": "max_model_len",
    "--max-num-seqs": "max_num_seqs", "--max-running-requests": "max_num_seqs", "--max-batch-size": "max_num_seqs",
    "--max-num-batched-tokens": "max_num_batched_tokens", "--chunked-prefill-size": "max_num_batched_tokens",
    "--max-num-tokens": "max_num_batched_tokens",
    "--gpu-memory-utilization": "memory_utilization", "--mem-fraction-static": "memory_utilization",
    "--block-size": "block_tokens", "--page-size": "block_tokens",
    "--dtype": "dtype",
    "--quantization": "quantization", "-q": "quantization",
    "--kv-cache-dtype": "kv_cache_dtype",
    "--api-key": "api_keys",
    "--seed": "seed", "--random-seed": "seed",
}  # fmt: skip
_FLAGS = {
    "--enable-expert-parallel": ("expert_parallel", True),
    "--no-enable-expert-parallel": ("expert_parallel", False),
    "--enable-prefix-caching": ("prefix_caching", True),
    "--no-enable-prefix-caching": ("prefix_caching", False),
    "--disable-radix-cache": ("prefix_caching", False),
    "--enforce-eager": ("eager", True),
    "--no-enforce-eager": ("eager", False),
}
_LISTS = frozenset({"served_names", "api_keys"})
_INTEGERS = frozenset({
    "port", "tensor_parallel", "pipeline_parallel", "data_parallel", "max_model_len", "max_num_seqs",
    "max_num_batched_tokens", "block_tokens", "seed",
})  # fmt: skip
_UNITS = {"k": 1000, "m": 1000**2, "g": 1000**3, "K": 1024, "M": 1024**2, "G": 1024**3}


def parse_options(command: Sequence[str], env: dict[str, str] | None = None) -> EngineOptions:
    """Read a container's command and arguments.

    Args:
        command: `command` and `args` of the container, joined; a `sh -c "vllm serve …"` wrapper is unpacked.
        env: the container's environment; VLLM_API_KEY is honoured.
    Raises:
        OptionsError: no model, or a value that the engine's own parser would refuse.
    """
    words = _arguments(list(command))
    values: dict[str, object] = {}
    ignored: list[str] = []
    position = 0
    while position < len(words):
        position = _read(words, position, values, ignored)
    if "model" not in values:
        raise OptionsError("error: the following arguments are required: --model")
    keys = tuple(values.get("api_keys") or ()) or tuple(filter(None, [(env or {}).get("VLLM_API_KEY", "")]))  # type: ignore[arg-type]
    values["api_keys"] = keys
    values.setdefault("served_names", (values["model"],))
    return EngineOptions(**values, ignored=tuple(ignored))  # type: ignore[arg-type]


def _arguments(words: list[str]) -> list[str]:
    """The words after the program: unwraps shells, `vllm serve`, `python -m …api_server`."""
    if len(words) > 2 and words[0].rpartition("/")[2] in ("sh", "bash") and words[1].lstrip("-").endswith("c"):
        script = words[2].replace("\\\n", " ").strip().splitlines()[-1]
        words = shlex.split(script) + words[4:]
        words = words[1:] if words[:1] == ["exec"] else words
    if words and words[0].rpartition("/")[2].startswith("python"):
        return words[3:] if words[1:2] == ["-m"] else words[1:]
    if words and words[0].rpartition("/")[2] in ("vllm", "sglang", "trtllm-serve"):
        words = words[1:]
    return words[1:] if words[:1] == ["serve"] else words


def _read(words: list[str], position: int, values: dict[str, object], ignored: list[str]) -> int:
    """Take one option; returns the position after it."""
    word, equals, attached = words[position].partition("=")
    word = word.replace("_", "-") if word.startswith("--") else word
    if not word.startswith("-"):
        values.setdefault("model", words[position])
        return position + 1
    if word in _FLAGS:
        name, flag = _FLAGS[word]
        values[name] = flag
        return position + 1
    taken = [attached] if equals else _following(words, position + 1, many=_NAMES.get(word) in _LISTS)
    if word not in _NAMES:
        ignored.append(word)
    elif not taken:
        raise OptionsError(f"error: argument {word}: expected one argument")
    else:
        values[_NAMES[word]] = _convert(word, _NAMES[word], taken)
    return position + 1 + (0 if equals else len(taken))


def _following(words: list[str], start: int, *, many: bool) -> list[str]:
    end = start
    while end < len(words) and not words[end].startswith("--") and (many or end == start):
        end += 1
    return words[start:end]


def _convert(option: str, name: str, taken: list[str]) -> object:
    text = taken[0]
    if name in _LISTS:
        return tuple(taken)
    try:
        if name in _INTEGERS:
            return _integer(text)
        if name == "memory_utilization":
            return _share(text)
    except ValueError as problem:
        raise OptionsError(f"error: argument {option}: invalid value: {text!r} ({problem})") from None
    return text


def _integer(text: str) -> int:
    """vLLM accepts 8192, 8k (thousands) and 8K (1024s)."""
    unit = _UNITS.get(text[-1:], 1)
    value = int(float(text[:-1]) * unit) if unit > 1 else int(text)
    if value < 0:
        raise ValueError("must not be negative")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError("must be above 0 and at most 1")
    return value
