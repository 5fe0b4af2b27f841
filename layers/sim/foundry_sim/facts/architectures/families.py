"""How each model family spends parameters where the config does not say: biases, norms, gates, tied embeddings.

Sources: the families' published modelling code (Hugging Face transformers, Apache-2.0) and model cards; the tests
check each family against published parameter counts.
"""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class Family:
    """Traits of a family. A bias given as text is the config flag that decides it."""

    tied: bool = False
    qkv_bias: bool | str = "attention_bias"
    out_bias: bool | str = "attention_bias"
    gated: bool = True
    mlp_bias: bool | str = "mlp_bias"
    norms: int = 2
    norm_bias: bool = False
    norm_weight: bool = True
    qk_norm: Literal["", "head", "full"] = ""
    qk_norm_flag: str = ""
    final_norm: bool = True
    embedding_norm: bool = False
    learned_positions: int | None = None
    head_bias: bool | str = False
    gated_query: bool = False
    sinks: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    encoder: bool = False


_LLAMA = Family()
_LAYER_NORM = Family(norm_bias=True, gated=False, qkv_bias=True, out_bias=True, mlp_bias=True)
_BERT = replace(_LAYER_NORM, encoder=True, tied=True, learned_positions=0, embedding_norm=True, final_norm=False)
_QWEN2 = Family(qkv_bias=True, out_bias=False, mlp_bias=False)
_QWEN3 = Family(qk_norm="head", mlp_bias=False)
_QWEN3_NEXT = replace(_QWEN3, gated_query=True)
_GEMMA = Family(tied=True, mlp_bias=False)
_GEMMA2 = replace(_GEMMA, norms=4)
_GEMMA3 = replace(_GEMMA2, qk_norm="head")
_COHERE = Family(tied=True, norms=1, qk_norm="full", qk_norm_flag="use_qk_norm", mlp_bias=False)
_DEEPSEEK3 = Family(router_bias=True, mlp_bias=False)

FAMILIES: dict[str, Family] = {
    "afmoe": Family(norms=4, qk_norm="head", router_bias=True, gated_query=True),
    "apertus": Family(gated=False, qk_norm="head"),
    "arcee": Family(gated=False),
    "baichuan": Family(qkv_bias=False, out_bias=False),
    "bailing_moe": Family(qkv_bias="use_qkv_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "bailing_moe_v2": Family(
        qkv_bias="use_qkv_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        qk_norm="head",
        qk_norm_flag="use_qk_norm",
        router_bias=True,
    ),
    "bamba": Family(),
    "bert": _BERT,
    "bloom": replace(_LAYER_NORM, tied=True, embedding_norm=True),
    "chatglm": Family(qkv_bias="add_qkv_bias", out_bias="add_bias_linear", mlp_bias="add_bias_linear"),
    "cohere": _COHERE,
    "cohere2": replace(_COHERE, qk_norm=""),
    "cohere2_moe": replace(_COHERE, qk_norm=""),
    "dbrx": Family(qkv_bias=False, out_bias=False),
    "deepseek": Family(mlp_bias=False),
    "deepseek_v2": Family(mlp_bias=False),
    "deepseek_v3": _DEEPSEEK3,
    "deepseek_v32": _DEEPSEEK3,
    "distilbert": _BERT,
    "dots1": Family(qk_norm="head", router_bias=True),
    "ernie4_5": Family(tied=True, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "ernie4_5_moe": Family(tied=True, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", router_bias=True),
    "exaone": Family(qkv_bias=False, out_bias=False),
    "exaone4": Family(qk_norm="head"),
    "falcon": Family(tied=True, gated=False, norm_bias=True, qkv_bias="bias", out_bias="bias", mlp_bias="bias"),
    "falcon_h1": Family(),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "gemma4_text": _GEMMA3,
    "glm": Family(out_bias=False, mlp_bias=False),
    "glm4": Family(out_bias=False, mlp_bias=False, norms=4),
    "glm4_moe": Family(out_bias=False, mlp_bias=False, router_bias=True, qk_norm="head", qk_norm_flag="use_qk_norm"),
    "glm4_moe_lite": _DEEPSEEK3,
    "glm4v_moe_text": Family(out_bias=False, mlp_bias=False, router_bias=True),
    "glm4v_text": Family(out_bias=False, mlp_bias=False, norms=4),
    "glm_moe_dsa": _DEEPSEEK3,
    "gpt2": replace(_LAYER_NORM, tied=True, learned_positions=0),
    "gpt_bigcode": replace(_LAYER_NORM, tied=True, learned_positions=0),
    "gpt_neox": replace(_LAYER_NORM, qkv_bias=True, out_bias=True),
    "gpt_oss": Family(sinks=True, expert_bias=True, router_bias=True),
    "gptj": Family(gated=False, norms=1, norm_bias=True, qkv_bias=False, out_bias=False, mlp_bias=True, head_bias=True),
    "granite": Family(),
    "granitemoe": Family(),
    "granitemoehybrid": Family(),
    "granitemoeshared": Family(),
    "gpt_neo": replace(_LAYER_NORM, tied=True, qkv_bias=False, learned_positions=0),
    "hy_v3": Family(qk_norm="head", router_bias=True),
    "longcat_flash": Family(mlp_bias=False, router_bias=True),
    "mamba": Family(tied=True, norms=1),
    "falcon_mamba": Family(tied=True, norms=1),
    "mamba2": Family(tied=True, norms=1),
    "gemma3n_text": _GEMMA3,
    "mellum": Family(qk_norm="head"),
    "minimax_m3": Family(qk_norm="head", router_bias=True),
    "mllama_text_model": Family(mlp_bias=False),
    "olmo_hybrid": Family(qk_norm="full"),
    "solar_open": Family(router_bias=True),
    "step3p5": Family(qk_norm="head", router_bias=True),
    "step3p7": Family(qk_norm="head", router_bias=True),
    "zamba2": Family(tied=True),
    "deepseek_v4": Family(mlp_bias=False, sinks=True),
    "helium": Family(),
    "hunyuan_v1_dense": Family(qk_norm="head", qk_norm_flag="use_qk_norm"),
    "hunyuan_v1_moe": Family(qk_norm="head", qk_norm_flag="use_qk_norm"),
    "internlm": Family(qkv_bias="bias", out_bias="bias", mlp_bias=False),
    "internlm2": Family(qkv_bias="bias", out_bias="bias", mlp_bias=False),
    "internlm3": Family(qkv_bias="qkv_bias", out_bias="bias", mlp_bias="bias"),
    "jamba": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "kimi_k2": _DEEPSEEK3,
    "kimi_linear": _DEEPSEEK3,
    "lfm2": Family(tied=True, qk_norm="head"),
    "lfm2_moe": Family(tied=True, qk_norm="head", router_bias=True),
    "llama": _LLAMA,
    "llama4_text": Family(mlp_bias=False),
    "mimo": _QWEN2,
    "mimo_v2_flash": Family(out_bias=False, router_bias=True),
    "minicpm": Family(),
    "minicpm3": Family(),
    "minimax": Family(qkv_bias=False, out_bias=False),
    "minimax_m2": Family(qk_norm="full", router_bias=True),
    "ministral3": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "mistral": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "mixtral": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "modernbert": Family(
        encoder=True, tied=True, embedding_norm=True, qkv_bias="attention_bias", out_bias="attention_bias"
    ),
    "mpnet": _BERT,
    "mpt": Family(tied=True, gated=False, qkv_bias=False, out_bias=False, mlp_bias=False),
    "nemotron": Family(gated=False, norm_bias=True),
    "nemotron_h": Family(gated=False, norms=1, qkv_bias=False, out_bias=False),
    "nemotron-nas": Family(),
    "deci": Family(qkv_bias=False, out_bias=False),
    "nomic_bert": replace(_BERT, learned_positions=None, gated=True, qkv_bias=False, out_bias=False, mlp_bias=False),
    "olmo": Family(norm_weight=False),
    "olmo2": Family(qk_norm="full"),
    "olmo3": Family(qk_norm="full"),
    "olmoe": Family(qk_norm="full"),
    "opt": replace(_LAYER_NORM, tied=True, learned_positions=2),
    "persimmon": replace(_LAYER_NORM),
    "phi": replace(_LAYER_NORM, norms=1, head_bias=True),
    "phi3": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "phi4mm": Family(qkv_bias=False, out_bias=False, mlp_bias=False),
    "phimoe": Family(norm_bias=True, head_bias="lm_head_bias"),
    "qwen": Family(qkv_bias=True, out_bias=False, mlp_bias=False),
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_text": _QWEN3_NEXT,
    "qwen3_5_moe_text": _QWEN3_NEXT,
    "roberta": replace(_BERT, learned_positions=0),
    "seed_oss": Family(qkv_bias="attention_bias", out_bias="attention_out_bias"),
    "smollm3": _LLAMA,
    "solar": _LLAMA,
    "stablelm": Family(
        norm_bias=True,
        qk_norm="full",
        qk_norm_flag="qk_layernorm",
        qkv_bias="use_qkv_bias",
        out_bias=False,
        mlp_bias=False,
    ),
    "starcoder2": Family(
        tied=True, gated=False, norm_bias=True, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"
    ),
    "t5": Family(tied=True, gated=False, qkv_bias=False, out_bias=False, mlp_bias=False),
    "xlm-roberta": replace(_BERT, learned_positions=0),
}

# One family under several names; values are keys of FAMILIES.
SAME_FAMILY: dict[str, str] = {
    "aquila": "llama",
    "camembert": "roberta",
    "code_llama": "llama",
    "deepseek_vl_v2": "deepseek_v2",
    "gemma3n": "gemma3n_text",
    "deepseek_ref": "deepseek_v4",
    "gemma4": "gemma4_text",
    "internlm2_ve": "internlm2",
    "kimi_k25": "kimi_k2",
    "llama4": "llama4_text",
    "minicpmv": "qwen2",
    "minimax_text_01": "minimax",
    "minimax_m1": "minimax",
    "mllama": "mllama_text_model",
    "mt5": "t5",
    "umt5": "t5",
    "new": "nomic_bert",
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_omni_text": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_omni_moe_text": "qwen3_moe",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "refinedweb": "falcon",
    "refinedwebmodel": "falcon",
    "yi": "llama",
    "xverse": "llama",
}


def family_name(model_type: str) -> str:
    """The one name under which this model type's traits are kept."""
    key = model_type.lower()
    return SAME_FAMILY.get(key, key)


def family_of(model_type: str) -> Family:
    """The family's traits; an unknown type is read as Llama-like, which its config fields then refine."""
    return FAMILIES.get(family_name(model_type), _LLAMA)
