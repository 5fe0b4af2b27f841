"""What requests hear that are refused: in words of what to do."""

import gzip

import pytest
from gateway.core.call import parse
from gateway.core.lease import Scope
from gateway.core.problems import Rejected
from gateway.core.reserve import refuse_for_now


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [("money_nanos", "insufficient_quota", "held for other requests"), ("requests", "rate_limit_exceeded", "")],
)
def test_what_is_short_may_be_held_by_others(kind: str, code: str, said: str) -> None:
    scope = Scope("key:k", kind, 100)
    scope.retry_at_ms = 4000
    with pytest.raises(Rejected) as refused:
        refuse_for_now(scope, 1000)
    assert (refused.value.code, refused.value.retry_after_s) == (code, 3) and said in refused.value.message
    refuse_for_now(scope, 4000)


@pytest.mark.parametrize(
    "body", [gzip.compress(b'{"model":"m"}', mtime=0), '{"model":"m"}'.encode("utf-16"), b'{"model":"\xff"}']
)
def test_a_body_that_is_no_text_is_told_how_to_be_sent(body: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse(body)
    assert refused.value.status == 400 and "not compressed" in refused.value.message
