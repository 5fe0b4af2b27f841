"""A kubeconfig from a stranger: what is accepted, and that nothing dangerous is."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from functions.cluster import kubeconfig
from functions.cluster.errors import KubeconfigInvalid

PEM = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n").decode()


def document(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "main",
        "contexts": [{"name": "other", "context": {"cluster": "x", "user": "x"}},
                     {"name": "main", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://k8s.example.com:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "t0ken"} if user is None else user}],
    }  # fmt: skip


def text(**parts: Any) -> str:
    return yaml.safe_dump(document(**parts))


def test_the_current_context_is_taken() -> None:
    found = kubeconfig.parse(text(cluster={"certificate-authority-data": PEM, "tls-server-name": "k8s"}))
    assert (found.server, found.token, found.ca_data) == ("https://k8s.example.com:6443", "t0ken", PEM)
    assert found.tls_server_name == "k8s"


def test_a_client_certificate_will_do() -> None:
    user = {"client-certificate-data": PEM, "client-key-data": PEM}
    found = kubeconfig.parse(text(user=user))
    assert found.token is None and found.client_key_data == PEM
    assert found.config_dict()["users"][0]["user"] == user


def test_what_is_passed_on_is_only_what_was_understood() -> None:
    config = kubeconfig.parse(text(cluster={"extensions": [{"name": "x"}]})).config_dict()
    assert config["clusters"][0]["cluster"] == {"server": "https://k8s.example.com:6443"}
    assert config["users"][0]["user"] == {"token": "t0ken"}


DANGEROUS = {
    "exec": ({}, {"exec": {"command": "sh", "args": ["-c", "id"]}}),
    "auth-provider": ({}, {"auth-provider": {"name": "gcp", "config": {"cmd-path": "/bin/sh"}}}),
    "exec beside a token": ({}, {"token": "t", "exec": {"command": "sh"}}),
    "token file": ({}, {"tokenFile": "/var/run/secrets/token"}),
    "certificate file": ({}, {"client-certificate": "/etc/passwd", "client-key": "/etc/passwd"}),
    "authority file": ({"certificate-authority": "/etc/passwd"}, None),
    "no verification": ({"insecure-skip-tls-verify": True}, None),
    "proxy": ({"proxy-url": "http://evil.example.com"}, None),
    "impersonation": ({}, {"token": "t", "as": "system:admin"}),
    "basic": ({}, {"username": "a", "password": "b"}),
    "plain http": ({"server": "http://k8s.example.com"}, None),
    "file url": ({"server": "file:///etc/passwd"}, None),
    "metadata": ({"server": "https://169.254.169.254"}, None),
    "metadata mapped": ({"server": "https://[::ffff:169.254.169.254]"}, None),
    "metadata v6": ({"server": "https://[fd00:ec2::254]"}, None),
    "metadata name": ({"server": "https://metadata.google.internal"}, None),
    "unspecified": ({"server": "https://0.0.0.0"}, None),
    "user in url": ({"server": "https://a:b@k8s.example.com"}, None),
    "query in url": ({"server": "https://k8s.example.com?x=1"}, None),
    "bad port": ({"server": "https://k8s.example.com:99999"}, None),
    "no server": ({"server": ""}, None),
    "server is a number": ({"server": 5}, None),
    "no identity": ({}, {}),
    "certificate without key": ({}, {"client-certificate-data": PEM}),
    "not base64": ({"certificate-authority-data": "%%%"}, None),
    "not PEM": ({"certificate-authority-data": base64.b64encode(b"hello").decode()}, None),
    "header injection": ({}, {"token": "a\r\nx-admin: 1"}),
}


@pytest.mark.parametrize("case", DANGEROUS)
def test_danger_is_refused_in_one_sentence(case: str) -> None:
    cluster, user = DANGEROUS[case]
    with pytest.raises(KubeconfigInvalid) as caught:
        kubeconfig.parse(text(cluster=cluster, user=user))
    assert caught.value.code == "kubeconfig_invalid" and "\n" not in caught.value.detail


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.2", "localhost", "LOCALHOST", "localhost.", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_the_functions_own_runtime_is_not_a_cluster(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    for scheme in ("http", "https"):
        with pytest.raises(KubeconfigInvalid):
            kubeconfig.parse(text(cluster={"server": f"{scheme}://{host}:9001"}))
    assert kubeconfig.parse(text(cluster={"server": "http://127.0.0.1:9002/"})).server == "http://127.0.0.1:9002"


@pytest.mark.parametrize(
    "content",
    [
        "", "null", "[]", "5", "kind: Pod", "{", "a: &x [*x]", "a: &x {k: v}\nb: *x",
        "[" * 60_000, "- " * 30_000, "? " * 30_000, "{a: " * 15_000, "!!map " * 9000, "- x\n" * 16_000,
        "kind: Config\ncurrent-context: none", "kind: Config\ncurrent-context: [1]",
        "kind: Config\ncurrent-context: c\ncontexts: 7", "!!python/object/apply:os.system ['id']", "x" * 70_000, "\x00",
        "kind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: 3",
    ],
)  # fmt: skip
def test_what_is_no_kubeconfig(content: str) -> None:
    with pytest.raises(KubeconfigInvalid):
        kubeconfig.parse(content)


@settings(deadline=None, max_examples=50)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "cluster", "user", "server", "token", "x"]), inner,
    max_size=4), max_leaves=12))  # fmt: skip
def test_any_shape_is_accepted_or_refused_never_a_fault(value: Any) -> None:
    for place in ("contexts", "clusters", "users", "current-context"):
        try:
            found = kubeconfig.parse(yaml.safe_dump({**document(), place: value}))
        except KubeconfigInvalid:
            continue
        assert found.server


def test_size_is_counted_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    parse: Callable[[str], Any] = kubeconfig.parse
    with pytest.raises(KubeconfigInvalid, match="larger"):
        parse("é" * (kubeconfig.MAX_BYTES // 2 + 1))
