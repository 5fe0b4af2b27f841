"""Devices and number formats: physical facts that must hold for every entry."""

import pytest
from foundry_sim.errors import PrecisionError
from foundry_sim.facts.devices import DeviceError, device, find, names, prices_as_of
from foundry_sim.facts.precision import Precision, bytes_of, cache_bytes_of, canonical

REQUIRED = ["h100_sxm", "h100_pcie", "h200_sxm", "gh200", "b200_sxm", "b300_sxm", "gb200", "gb300", "a100_sxm",
            "a100_sxm_40gb", "a10", "l4", "l40s", "rtx_pro_6000", "t4", "v100", "mi250", "mi300x", "mi325x", "mi355x",
            "gaudi2", "gaudi3", "xeon_6767p"]  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_required_devices_exist(name: str) -> None:
    assert device(name).name == name


@pytest.mark.parametrize("name", names())
def test_facts_are_physical(name: str) -> None:
    found = device(name)
    assert 8e9 < found.memory_bytes < 1e12
    assert 1e11 < found.memory_bandwidth_bytes_per_s < 2e13
    assert found.peak_flops.get("bf16") or found.peak_flops["fp16"]
    assert found.peak_flops.get("fp4", 2e16) > found.peak_flops.get("fp8", 0)
    assert found.source
    prices = found.price_nanos_per_hour
    assert 0 < prices["owned"] <= prices["spot"] <= prices["on_demand"] or prices["spot"] < prices["owned"]
    assert all(isinstance(value, int) for value in prices.values())
    assert found.link_domain_devices >= 1
    assert found.power_w > 0


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("H100-80GB", "h100_sxm"),
        ("NVIDIA-H100-80GB-HBM3", "h100_sxm"),
        ("NVIDIA-A100-SXM4-80GB", "a100_sxm"),
        ("A100-80GB", "a100_sxm"),
        ("NVIDIA-L40S", "l40s"),
        ("mi300x", "mi300x"),
        ("Tesla-T4", "t4"),
    ],
)
def test_labels_of_real_nodes_resolve(alias: str, name: str) -> None:
    assert device(alias).name == name


def test_unknown_devices() -> None:
    assert find("gtx_960") is None
    with pytest.raises(DeviceError, match="gtx_960"):
        device("gtx_960")


def test_memory_is_the_drivers_total_not_the_label() -> None:
    assert device("h100_sxm").memory_bytes == 81559 * 2**20 < 80 * 2**30
    assert device("l40s").memory_bytes < 48 * 10**9 * 1.01


def test_formats_without_a_unit_run_in_16_bit() -> None:
    a100, b200 = device("a100_sxm"), device("b200_sxm")
    assert a100.flops_for("fp8") == a100.peak_flops["bf16"]
    assert b200.flops_for("nvfp4") == b200.peak_flops["fp4"] == 2 * b200.flops_for("fp8")
    assert not a100.supports("fp8")
    assert a100.supports("int4")
    assert device("t4").flops_for("bf16") == device("t4").peak_flops["fp16"]


def test_prices_say_when_they_were_assumed() -> None:
    as_of, note = prices_as_of()
    assert as_of.startswith("20")
    assert "Assumptions" in note


@pytest.mark.parametrize(
    ("name", "size"),
    [("bf16", 2.0), ("nvfp4", 0.5625), ("mxfp4", 0.53125), ("fp8", 1 + 4 / 16384), ("torch.bfloat16", 2.0)],
)
def test_weight_bytes_include_scales(name: str, size: float) -> None:
    assert bytes_of(name) == size


def test_cache_formats() -> None:
    assert cache_bytes_of("fp8_e4m3") == 1.0
    with pytest.raises(PrecisionError, match="cannot hold"):
        cache_bytes_of("int2")


def test_precision_is_canonical_and_fills_in() -> None:
    found = Precision("FP8", "e4m3", "bfloat16")
    assert (found.weights, found.activations, found.kv, found.moe, found.attention) == (
        "fp8", "fp8", "bf16", "fp8", "fp8",
    )  # fmt: skip
    assert found.label() == "fp8"
    assert Precision("bf16", moe="mxfp4").label() == "bf16 + mxfp4 experts"
    with pytest.raises(PrecisionError, match="fp7"):
        Precision("fp7")
    assert canonical("AWQ") == "int4"
