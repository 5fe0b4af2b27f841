"""Architectures against published parameter counts, and configs that nobody should trust."""

import json
from dataclasses import replace

import pytest
from foundry_sim.facts.architecture import ArchitectureError, from_config, names, resolve
from foundry_sim.facts.architectures.catalogue import config_of
from hypothesis import given, settings
from hypothesis import strategies as st

# Billions of parameters as the model cards, papers and hub pages state them (not computed here).
PUBLISHED = {
    "meta-llama/Llama-2-7b-hf": 6.738,
    "meta-llama/Llama-2-70b-hf": 68.977,
    "meta-llama/Llama-3.1-8B": 8.030,
    "meta-llama/Llama-3.1-70B": 70.554,
    "meta-llama/Llama-3.1-405B": 405.853,
    "meta-llama/Llama-3.2-1B": 1.236,
    "meta-llama/Llama-3.2-3B": 3.213,
    "meta-llama/Llama-3.2-11B-Vision-Instruct": 10.670,
    "meta-llama/Llama-4-Scout-17B-16E-Instruct": 108.64,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 401.6,
    "Qwen/Qwen2.5-0.5B-Instruct": 0.494,
    "Qwen/Qwen2.5-7B-Instruct": 7.616,
    "Qwen/Qwen2.5-72B-Instruct": 72.706,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8.292,
    "Qwen/Qwen3-0.6B": 0.596,
    "Qwen/Qwen3-8B": 8.191,
    "Qwen/Qwen3-32B": 32.762,
    "Qwen/Qwen3-30B-A3B": 30.532,
    "Qwen/Qwen3-235B-A22B": 235.094,
    "Qwen/Qwen3-Next-80B-A3B-Instruct": 79.67,
    "Qwen/Qwen2-57B-A14B-Instruct": 57.41,
    "mistralai/Mistral-7B-v0.1": 7.242,
    "mistralai/Mistral-Nemo-Instruct-2407": 12.248,
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": 24.011,
    "mistralai/Mistral-Large-Instruct-2407": 122.610,
    "mistralai/Mixtral-8x7B-v0.1": 46.703,
    "mistralai/Mixtral-8x22B-v0.1": 140.63,
    "google/gemma-2-2b-it": 2.614,
    "google/gemma-2-27b-it": 27.227,
    "google/gemma-3-4b-it": 4.300,
    "google/gemma-3-27b-it": 27.432,
    "microsoft/phi-2": 2.780,
    "microsoft/Phi-3-mini-4k-instruct": 3.821,
    "microsoft/phi-4": 14.66,
    "microsoft/Phi-3.5-MoE-instruct": 41.873,
    "deepseek-ai/DeepSeek-V2-Lite": 15.706,
    "deepseek-ai/DeepSeek-V2": 235.74,
    "deepseek-ai/DeepSeek-V3": 671.03,
    "zai-org/GLM-4.5-Air": 106.85,
    "zai-org/GLM-4-32B-0414": 32.57,
    "moonshotai/Kimi-K2-Instruct": 1026.4,
    "openai/gpt-oss-20b": 20.915,
    "openai/gpt-oss-120b": 116.829,
    "MiniMaxAI/MiniMax-M2": 228.69,
    "MiniMaxAI/MiniMax-Text-01": 456.09,
    "nvidia/Llama-3_3-Nemotron-Super-49B-v1": 49.867,
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.578,
    "nvidia/Nemotron-H-56B-Base-8K": 56.3,
    "tiiuae/falcon-7b": 6.922,
    "CohereLabs/c4ai-command-r-plus": 103.81,
    "CohereLabs/c4ai-command-a-03-2025": 111.06,
    "allenai/OLMo-2-1124-13B": 13.716,
    "allenai/OLMoE-1B-7B-0924": 6.919,
    "EleutherAI/gpt-neox-20b": 20.555,
    "EleutherAI/gpt-j-6b": 6.051,
    "bigscience/bloom": 176.247,
    "facebook/opt-6.7b": 6.658,
    "bigcode/starcoder": 15.517,
    "bigcode/starcoder2-7b": 7.174,
    "01-ai/Yi-34B": 34.389,
    "internlm/internlm2-chat-20b": 19.861,
    "HuggingFaceTB/SmolLM3-3B": 3.075,
    "ibm-granite/granite-3.1-8b-instruct": 8.171,
    "ai21labs/Jamba-v0.1": 51.57,
    "ai21labs/AI21-Jamba-1.5-Large": 398.56,
    "databricks/dbrx-instruct": 131.597,
    "google/flan-t5-xl": 2.8498,
    "BAAI/bge-large-en-v1.5": 0.33514,
    "BAAI/bge-m3": 0.56775,
    "BAAI/bge-reranker-v2-m3": 0.56776,
    "sentence-transformers/all-MiniLM-L6-v2": 0.02271,
    "Qwen/Qwen3-Embedding-0.6B": 0.5958,
}
# Billions that one token touches, as the cards state them (A3B, 37B active, ...): rounded there, so 6 %.
ACTIVE = {
    "deepseek-ai/DeepSeek-V3": 37,
    "Qwen/Qwen3-30B-A3B": 3.3,
    "Qwen/Qwen3-235B-A22B": 22,
    "moonshotai/Kimi-K2-Instruct": 32,
    "mistralai/Mixtral-8x7B-v0.1": 12.9,
    "meta-llama/Llama-4-Maverick-17B-128E-Instruct": 17,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


@pytest.mark.parametrize(("model", "billions"), PUBLISHED.items())
def test_parameters_match_what_is_published(model: str, billions: float) -> None:
    assert resolve(model).parameters / 1e9 == pytest.approx(billions, rel=0.005)


@pytest.mark.parametrize(("model", "billions"), ACTIVE.items())
def test_active_parameters_match_what_is_published(model: str, billions: float) -> None:
    assert resolve(model).active_parameters / 1e9 == pytest.approx(billions, rel=0.06)


def test_at_least_sixty_models_are_bundled_and_all_resolve() -> None:
    assert len(names()) >= 60
    for name in names():
        found = resolve(name)
        assert found.name == name
        assert found.layers == len(found.blocks) == sum(count for _, count in found.groups)
        assert 0 < found.active_parameters <= found.text_parameters <= found.parameters


def test_names_are_case_insensitive_and_have_aliases() -> None:
    base = resolve("meta-llama/Llama-3.1-70B")
    alias = resolve("META-LLAMA/llama-3.3-70b-instruct")
    assert alias.name == "META-LLAMA/llama-3.3-70b-instruct" and replace(alias, name=base.name) == base
    assert resolve("llama-3.1-70b") is base
    assert config_of("meta-llama/Llama-3.3-70B-Instruct")["num_hidden_layers"] == 80


@pytest.mark.parametrize(
    ("model", "weights", "moe", "attention", "kv"),
    [
        ("meta-llama/Llama-3.1-8B", "bf16", "bf16", "bf16", "bf16"),
        ("deepseek-ai/DeepSeek-V3", "fp8", "fp8", "fp8", "bf16"),
        ("openai/gpt-oss-120b", "bf16", "mxfp4", "bf16", "bf16"),
        ("moonshotai/Kimi-K2.5", "bf16", "int4", "bf16", "bf16"),
        ("Qwen/Qwen3-235B-A22B-FP8", "fp8", "fp8", "fp8", "bf16"),
        ("nvidia/DeepSeek-V3.1-NVFP4", "nvfp4", "nvfp4", "bf16", "fp8"),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "fp8", "fp8", "fp8", "bf16"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "int4", "int4", "int4", "bf16"),
        ("nvidia/DeepSeek-R1-NVFP4", "nvfp4", "nvfp4", "bf16", "bf16"),
        ("nvidia/DeepSeek-R1-0528-NVFP4-v2", "nvfp4", "nvfp4", "bf16", "bf16"),
        ("amd/DeepSeek-R1-0528-MXFP4-Preview", "mxfp4", "mxfp4", "bf16", "bf16"),
        ("amd/Llama-3.3-70B-Instruct-MXFP4-Preview", "mxfp4", "mxfp4", "mxfp4", "bf16"),
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", "int4", "int4", "int4", "bf16"),
    ],
)
def test_checkpoint_precision_is_read(model: str, weights: str, moe: str, attention: str, kv: str) -> None:
    found = resolve(model).checkpoint_precision
    assert (found.weights, found.moe, found.attention, found.kv) == (weights, moe, attention, kv)


def test_layer_patterns() -> None:
    gemma = resolve("google/gemma-3-27b-it")
    assert gemma.attention[:6] == ("sliding",) * 5 + ("full",)
    assert gemma.sliding_window == 1024
    assert resolve("openai/gpt-oss-20b").attention[:2] == ("sliding", "full")
    assert resolve("Qwen/Qwen3-Next-80B-A3B-Instruct").attention[:4] == ("linear", "linear", "linear", "full")
    assert resolve("ai21labs/Jamba-v0.1").attention.count("full") == 4
    assert resolve("meta-llama/Llama-4-Scout-17B-16E-Instruct").attention[:4] == ("chunked",) * 3 + ("full",)
    assert resolve("deepseek-ai/DeepSeek-V3").moe_layers == (False,) * 3 + (True,) * 58
    assert resolve("meta-llama/Llama-4-Maverick-17B-128E-Instruct").moe_layers[:2] == (False, True)
    assert set(resolve("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16").attention) == {"ssm", "full", "none"}
    assert {layer.mixer.kv_heads for layer, _ in resolve("nvidia/Llama-3_3-Nemotron-Super-49B-v1").groups} == {0, 8}


def test_tasks() -> None:
    assert resolve("BAAI/bge-m3").task == "embed"
    assert resolve("BAAI/bge-reranker-v2-m3").task == "classify"
    assert resolve("Qwen/Qwen3-Embedding-0.6B").task == "embed"
    assert resolve("meta-llama/Llama-3.1-8B").task == "generate"


@pytest.mark.parametrize(
    ("name", "task"),
    [("GPT2LMHeadModel", "generate"), ("ChatGLMModel", "generate"), ("InternVLChatModel", "generate"),
     ("LlamaModel", "embed"), ("LlamaBidirectionalModel", "embed"), ("LlamaForSequenceClassification", "classify")],
)  # fmt: skip
def test_the_class_says_what_a_model_is_for(name: str, task: str) -> None:
    assert from_config({**LLAMA, "architectures": [name]}).task == task


def test_a_local_config_resolves(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert resolve(str(folder)).layers == resolve(str(folder / "config.json")).layers == 32
    (folder / "broken.json").write_text("{")
    with pytest.raises(ArchitectureError, match="not valid JSON"):
        resolve(str(folder / "broken.json"))
    (folder / "list.json").write_text("[]")
    with pytest.raises(ArchitectureError, match="JSON object"):
        resolve(str(folder / "list.json"))


@pytest.mark.parametrize("model", ["nobody/no-such-model", "", "x" * 5000, "/dev/null", "bad\0name", "no-such-FP8"])
def test_unknown_models_are_one_sentence(model: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        resolve(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"vocab_size": 1e300}, "vocab_size"),
        ({"num_key_value_heads": 7}, "num_key_value_heads"),
        ({"num_local_experts": 10**7}, "num_local_experts"),
        ({"layer_types": "full_attention"}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"text_config": []}, "text_config"),
        ({"quantization_config": 7}, "quantization_config"),
    ],
)
def test_malformed_configs_name_the_field(change: dict[str, object], field: str) -> None:
    with pytest.raises(ArchitectureError, match=field):
        from_config({**LLAMA, **change})


def test_a_missing_essential_is_never_guessed() -> None:
    with pytest.raises(ArchitectureError, match="hidden_size"):
        from_config({"model_type": "llama", "num_hidden_layers": 32})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
_SEEDS = ["Qwen/Qwen3-235B-A22B-FP8", "deepseek-ai/DeepSeek-V3.2", "google/gemma-3-4b-it", "ai21labs/Jamba-v0.1",
          "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Qwen/Qwen3.5-27B", "openai/gpt-oss-20b",
          "meta-llama/Llama-3.2-11B-Vision-Instruct", "deepseek-ai/DeepSeek-V4-Flash", "google/flan-t5-xl",
          "nvidia/Llama-3_3-Nemotron-Super-49B-v1", "google/gemma-4-26B-A4B", "BAAI/bge-m3"]  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_hostile_configs_raise_only_architecture_errors(data: st.DataObject) -> None:
    config = config_of(data.draw(st.sampled_from(_SEEDS)))
    section = data.draw(st.sampled_from([config, *(v for v in config.values() if isinstance(v, dict))]))
    for key in data.draw(st.lists(st.sampled_from(sorted(section)), min_size=1, max_size=3)):
        section[key] = data.draw(_JSON)
    try:
        found = from_config(config, "hostile")
    except ArchitectureError:
        return
    assert found.parameters > 0
