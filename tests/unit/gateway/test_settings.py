"""A setting that is wrong is named at the start, in one line that says what would be right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gateway.settings import BadSetting, Settings, from_environment

SOUND = {
    "GATEWAY_CONTROL_PLANE_URL": "https://control.example.com", "GATEWAY_TOKEN": "fgw-1", "GATEWAY_SPOOL_DIR": "/spool",
    "GATEWAY_GATEWAY_ID": "pod-7",
}  # fmt: skip


def test_what_is_not_set_is_as_usual() -> None:
    usual = Settings("https://control.example.com", "fgw-1", Path("/spool"), "pod-7")
    assert from_environment(SOUND) == usual


def test_every_kind_of_setting(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("fgw-2\n")
    environment = {
        **SOUND,
        "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
        "GATEWAY_FSYNC": "yes",
        "GATEWAY_POLL_S": "0.5",
    }
    del environment["GATEWAY_TOKEN"]
    settings = from_environment({**environment, "GATEWAY_TOKEN_FILE": str(token), "GATEWAY_PORT": "0"})
    assert (settings.trusted_proxies, settings.fsync, settings.poll_s) == (("10.0.0.0/8", "::1"), True, 0.5)
    assert (settings.gateway_token, settings.port) == ("fgw-2", 0)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GATEWAY_GATEWAY_ID", "../other"),
        ("GATEWAY_GATEWAY_ID", "two words"),
        ("GATEWAY_GATEWAY_ID", "x" * 81),
        ("GATEWAY_CONTROL_PLANE_URL", "control.example.com"),
        ("GATEWAY_CONTROL_PLANE_URL", "http://[::1"),
        ("GATEWAY_CONTROL_PLANE_URL", "http://a:port"),
        ("GATEWAY_CONTROL_PLANE_URL", ""),
        ("GATEWAY_TOKEN", "fgw 1"),
        ("GATEWAY_TOKEN", ""),
        ("GATEWAY_PORT", "70000"),
        ("GATEWAY_PORT", "tcp://10.0.0.1:80"),
        ("GATEWAY_WORKERS", "-1"),
        ("GATEWAY_POLL_S", "0"),
        ("GATEWAY_POLL_S", "nan"),
        ("GATEWAY_DRAIN_S", "inf"),
        ("GATEWAY_MAX_BODY_BYTES", "1.5"),
        ("GATEWAY_TRACE_RATIO", "2"),
        ("GATEWAY_FAIL_OPEN_MONEY_NANOS", "-1"),
        ("GATEWAY_FSYNC", "ture"),
        ("GATEWAY_LOG_LEVEL", "LOUD"),
        ("GATEWAY_TRUSTED_PROXIES", "10.0.0.0/8,proxy"),
        ("GATEWAY_OTLP_URL", "collector:4318"),
        ("GATEWAY_OTLP_HEADERS", "authorization"),
        ("GATEWAY_GEOIP_FILE", "/nowhere.mmdb"),
        ("GATEWAY_GEOIP_FILE", __file__),
    ],
)
def test_a_wrong_setting_is_named(variable: str, value: str) -> None:
    with pytest.raises(BadSetting) as refused:
        from_environment({**SOUND, variable: value})
    told = str(refused.value)
    assert variable in told and "\n" not in told and (variable != "GATEWAY_TOKEN" or not value or value not in told)


def test_a_token_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    environment = {name: value for name, value in SOUND.items() if name != "GATEWAY_TOKEN"}
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path / "binary", tmp_path):
        with pytest.raises(BadSetting, match="GATEWAY_TOKEN_FILE"):
            from_environment({**environment, "GATEWAY_TOKEN_FILE": str(path)})


def test_the_process_ends_with_one_line() -> None:
    environment = {**os.environ, **SOUND, "GATEWAY_GATEWAY_ID": "a/b"}
    ended = subprocess.run(
        [sys.executable, "-m", "gateway"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2 and ended.stdout == ""
    [line] = ended.stderr.splitlines()
    assert line.startswith("gateway: GATEWAY_GATEWAY_ID='a/b' must") and "docs/gateway.md" in line
