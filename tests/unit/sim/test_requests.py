"""What a row says, read as it is meant."""

from typing import Any

import pytest
from foundry_sim.facts.precision import Precision
from foundry_sim.facts.versions import software_days
from foundry_sim.predict import predict
from foundry_sim.requests import case, parse

ROW: dict[str, Any] = {"id": "r", "model": "meta-llama/Llama-3.1-8B-Instruct", "device": "h100_sxm", "engine": "vllm",
                       "isl": 1024, "osl": 256, "load": {"kind": "closed", "concurrency": 8}}  # fmt: skip


@pytest.mark.parametrize(
    "said", [{}, {"method": "none"}, {"method": "Unknown (MTP possible)"}, {"enabled": False, "method": "mtp"},
             {"method": None, "num_speculative_tokens": None}, {"num_speculative_tokens": 0}],
)  # fmt: skip
def test_a_draft_that_is_said_to_be_none_is_none(said: dict[str, Any]) -> None:
    assert parse(ROW | {"spec_decode": said}) == parse(ROW | {"spec_decode": None})
    assert parse(ROW | {"spec_decode": {"method": "mtp"}}).spec_decode == {"method": "mtp"}


def test_four_bit_checkpoints_run_as_weight_only_where_no_unit_takes_them() -> None:
    def formats(model: str, name: str, precision: dict[str, str]) -> Precision:
        return case(parse(ROW | {"model": model, "device": name, "precision": precision})).precision

    shipped, base = "nvidia/Llama-3.3-70B-Instruct-FP4", "meta-llama/Llama-3.3-70B-Instruct"
    assert formats(shipped, "h100_sxm", {}) == formats(base, "h100_sxm", {"weights": "fp4"})
    assert formats(shipped, "h100_sxm", {}).activations == "bf16"
    assert formats(shipped, "b200_sxm", {}).activations == "nvfp4"


def test_both_numbers_of_requests_at_once_are_the_same() -> None:
    for row in (ROW, ROW | {"device": "l40s", "engine": "sglang"}, ROW | {"max_num_seqs": 7}):
        (found,) = predict([parse(row)])
        assert found.memory is not None and found.max_concurrency == found.memory.max_concurrency > 0


@pytest.mark.parametrize(
    ("asked", "weights", "moe"),
    [
        ({}, "bf16", "mxfp4"),
        ({"weights": "bf16"}, "bf16", "mxfp4"),
        ({"weights": "fp4"}, "bf16", "mxfp4"),
        ({"weights": "fp4", "moe": "fp4"}, "bf16", "mxfp4"),
        ({"weights": "bf16", "moe": "bf16"}, "bf16", "bf16"),
        ({"moe": "bf16"}, "bf16", "bf16"),
        ({"weights": "fp8"}, "fp8", "fp8"),
    ],
)
def test_experts_have_the_format_that_is_named_for_them(asked: dict[str, str], weights: str, moe: str) -> None:
    found = case(parse(ROW | {"model": "openai/gpt-oss-20b", "precision": asked})).precision
    assert (found.weights, found.moe) == (weights, moe)


@pytest.mark.parametrize("load", [{"kind": "closed", "concurrency": 64}, {"kind": "open", "rate": 40},
                                  {"kind": "offline"}])  # fmt: skip
def test_copies_of_a_model_that_returns_vectors_share_the_load(load: dict[str, Any]) -> None:
    one, four = (
        predict(
            [
                parse(
                    ROW
                    | {
                        "model": "BAAI/bge-m3",
                        "osl": 0,
                        "dp": dp,
                        "load": {
                            name: value / 4 if dp == 1 and name != "kind" else value for name, value in load.items()
                        },
                    }
                )
            ]
        )[0]
        for dp in (1, 4)
    )
    assert one.e2e_ms is not None and four.e2e_ms == one.e2e_ms
    assert one.requests_per_s is not None and four.requests_per_s == pytest.approx(4 * one.requests_per_s)


@pytest.mark.parametrize(
    ("engine", "image", "version"),
    [
        ("vllm", "rocm/vllm:rocm6.4.1_vllm_0.9.1_20250702", "0.9.1"),
        ("vllm", "0.6.6 (ROCm 6.3.1)", "0.6.6"),
        ("sglang", "lmsysorg/sglang:v0.5.9-rocm700-mi35x", "0.5.9"),
        ("sglang", "pytorch2.9-sglang-0.5.7", "0.5.7"),
    ],
)
def test_the_version_in_an_images_name_is_the_engines(engine: str, image: str, version: str) -> None:
    assert software_days(engine, image, None) == software_days(engine, version, None) is not None
