"""The format that a checkpoint's quantization_config names, in the words of every tool that writes one."""

import pytest
from foundry_sim.facts.architecture import ArchitectureError, from_config
from foundry_sim.facts.architectures.catalogue import config_of

LLAMA = config_of("meta-llama/Llama-3.1-8B")


@pytest.mark.parametrize(
    ("quantised", "weights", "activations", "kv"),
    [
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}, "input_tensors": {
            "dtype": "fp8_e4m3"}}, "kv_cache_quant_config": {"*k_proj": {"output_tensors": {"dtype": "fp8_e4m3"}}}},
         "fp8", "fp8", "fp8"),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32},
                                                           "input_tensors": {"dtype": "fp4"}}},
         "mxfp4", "mxfp4", "bf16"),
        ({"quant_method": "torchao", "quant_type": "int4_weight_only"}, "int4", "bf16", "bf16"),
        ({"quant_method": "torchao", "quant_type": {"default": {"_type": "Int8DynamicActivationInt8WeightConfig"}}},
         "int8", "int8", "bf16"),
        ({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}}, "int4", "bf16", "bf16"),
        ({"quant_method": "quanto", "weights": "int8"}, "int8", "bf16", "bf16"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}},
         "fp8", "fp8", "bf16"),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"0.mlp": {"quant_algo": "NVFP4"}},
            },
            "nvfp4",
            "nvfp4",
            "bf16",
        ),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, "int4", "bf16", "bf16"),
        ({"quant_method": "w8a8_fp8"}, "fp8", "fp8", "bf16"),
        ({"quant_method": "gptq", "bits": 8}, "int8", "bf16", "bf16"),
        ({"bits": 16}, "bf16", "bf16", "bf16"),
    ],
)  # fmt: skip
def test_every_way_to_say_a_format_is_read(quantised: object, weights: str, activations: str, kv: str) -> None:
    found = from_config({**LLAMA, "quantization_config": quantised}).checkpoint_precision
    assert (found.weights, found.activations, found.kv) == (weights, activations, kv)


@pytest.mark.parametrize("method", ["gguf", "compressed-tensors", "one-of-tomorrow", ""])
def test_a_quantisation_of_unknown_format_is_not_taken_for_16_bits(method: str) -> None:
    with pytest.raises(ArchitectureError, match="names no format"):
        from_config({**LLAMA, "quantization_config": {"quant_method": method, "modules": []}})
