"""Who calls, and what may they call: everything is denied unless a key says otherwise."""

from hashlib import sha256
from ipaddress import ip_address

from gateway.core.problems import Rejected
from gateway.core.snapshot import Endpoint, Key, Network, Snapshot


def authorise(snapshot: Snapshot, token: bytes, now_ms: int, client_ip: str) -> Key:
    """The key that belongs to ``token``. Raises Rejected."""
    return find_key(snapshot, sha256(token).digest(), now_ms, client_ip)


def find_key(snapshot: Snapshot, digest: bytes, now_ms: int, client_ip: str) -> Key:
    """The key with this digest, if it may be used now and from there. Raises Rejected."""
    key = snapshot.keys.get(digest)
    if key is None:
        raise Rejected("invalid_api_key")
    if key.expires_at_ms is not None and key.expires_at_ms <= now_ms:
        raise Rejected("key_expired")
    if key.networks is not None and not inside(client_ip, key.networks):
        raise Rejected("address_not_allowed")
    return key


def inside(client_ip: str, networks: tuple[Network, ...]) -> bool:
    """Whether an address is in one of the networks; what is not an address is in none."""
    try:
        address = ip_address(client_ip)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)


def find_endpoint(snapshot: Snapshot, key: Key, model: str) -> Endpoint:
    """The endpoint that ``model`` names, if the key and its project may use it. Raises Rejected."""
    endpoint = snapshot.endpoints.get(model)
    if endpoint is None or (endpoint.project_ids is not None and key.project_id not in endpoint.project_ids):
        raise Rejected("model_not_found", param="model")
    if key.models is not None and model not in key.models and endpoint.name not in key.models:
        raise Rejected("model_not_allowed", param="model")
    return endpoint


def visible_models(snapshot: Snapshot, key: Key) -> list[str]:
    """The names that the key may call, sorted."""
    names = []
    for name in snapshot.endpoints:
        try:
            find_endpoint(snapshot, key, name)
        except Rejected:
            continue
        names.append(name)
    return sorted(names)
