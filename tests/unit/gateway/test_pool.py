"""Pools of connections to deployments."""

from gateway.core import wire
from gateway.core.snapshot import Deployment
from gateway.pool import Pools


def deployment(url: str) -> Deployment:
    return Deployment(wire.Deployment("dep_1", url, "llama"))


def test_certificates_are_for_https_alone_and_loaded_once() -> None:
    pools = Pools(connect_timeout_s=1.0)
    plain, one, other = (pools.of(deployment(url)) for url in ("http://a", "https://a", "https://b"))
    assert plain.tls is None
    assert one.tls is not None
    assert one.tls is other.tls
    assert pools.of(deployment("https://a/v1")) is one
