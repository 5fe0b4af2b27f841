"""Engines by the names that people and benchmarks give them."""

from foundry_sim.errors import ConfigurationError

# Those that measurements name; the last six have no launch command and no plans, only predictions.
KNOWN = ("vllm", "sglang", "trtllm", "atom", "deepspeed-mii", "deepspeed", "tgi", "optimum-habana", "lmdeploy")
ENCODERS = ("vllm", "sglang")  # servers with an embeddings endpoint
_ALSO = {"tensorrt": "trtllm", "trt": "trtllm", "sgl": "sglang", "text-generation-inference": "tgi"}


def engine_name(name: str) -> str:
    """`TensorRT-LLM (PyTorch backend)` and `dynamo-trt` are trtllm. ConfigurationError for an unknown one."""
    text = name.strip().lower()
    for word, engine in (*zip(KNOWN, KNOWN, strict=True), *_ALSO.items()):
        if word in text:
            return engine
    raise ConfigurationError(f"engine {name[:40]!r} is unknown; known are {', '.join(KNOWN)}")
