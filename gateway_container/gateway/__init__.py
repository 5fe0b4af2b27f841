"""The Foundry inference gateway: a pure policy core, a protocol-level hot path and a plain ASGI reference form."""
