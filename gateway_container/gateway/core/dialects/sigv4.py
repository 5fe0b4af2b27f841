"""AWS Signature Version 4 for one POST with a body (AWS General Reference, "Create a signed AWS API request").

Written here because AWS's own signer wants a newer Python and botocore weighs a hundred times the gateway; the tests
compare it with botocore.
"""

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

import msgspec

from gateway.core.stage import Header


class AwsCredential(msgspec.Struct, frozen=True):
    access_key_id: str
    secret_access_key: str
    region: str
    session_token: str | None = None


def sign(
    credential: AwsCredential, service: str, host: str, path: str, body: bytes, content_type: str, now_s: float
) -> list[Header]:
    """The headers that sign a POST to ``path`` (as sent, without query); ``now_s``: seconds since the epoch."""
    time = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    signed = {"content-type": content_type, "host": host, "x-amz-date": time}
    if credential.session_token is not None:
        signed["x-amz-security-token"] = credential.session_token
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    canonical = f"POST\n{quote(path, safe='/~')}\n\n{lines}\n{names}\n{sha256(body).hexdigest()}"
    scope = f"{time[:8]}/{credential.region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(_key(credential.secret_access_key, scope), text.encode(), sha256).hexdigest()
    value = (
        f"AWS4-HMAC-SHA256 Credential={credential.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    added = [(name.encode(), signed[name].encode()) for name in signed if name.startswith("x-amz-")]
    return [*added, (b"authorization", value.encode())]


def _key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
