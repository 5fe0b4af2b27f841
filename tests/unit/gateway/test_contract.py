"""The stand-in control plane takes exactly the lease messages that the real one takes."""

import json
from typing import Any

import msgspec
from gateway.core.lease import MOST
from gateway.leasing import BATCH
from gateway.standin import LeaseBatch as OfStandIn
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from functions.app.wire import LeaseBatch

SOUND = {
    "scope": "key:k",
    "kind": "money_nanos",
    "lease_id": "pod-0.1.1",
    "seq": 1,
    "spent": 0,
    "held": 0,
    "ceiling": 9,
}
numbers = st.sampled_from([-1, 0, 1, MOST, MOST + 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**70])
FIELDS = {
    "scope": st.sampled_from(
        ["key:k", "endpoint:a/b", "project:", "key:a b", "key:é", "other:k", "key:" + "k" * 201, ""]
    ),
    "kind": st.sampled_from(["requests", "tokens", "wake", "money", ""]),
    "lease_id": st.sampled_from(["a", "a.b-c_d", ".a", "a/b", "", "a" * 128, "a" * 129]),
    **dict.fromkeys(["seq", "spent", "held", "ceiling", "needed"], numbers),
    "window_ms": numbers | st.none(),
    "close": st.booleans(),
}
changes = st.fixed_dictionaries({}, optional=FIELDS)


def taken_by_the_real_one(batch: dict[str, Any]) -> bool:
    try:
        LeaseBatch.model_validate_json(json.dumps(batch))
    except ValidationError:
        return False
    return True


def taken_by_the_stand_in(batch: dict[str, Any]) -> bool:
    try:
        msgspec.json.decode(json.dumps(batch), type=OfStandIn)
    except msgspec.MsgspecError:
        return False
    return True


@given(changes)
@example({})
@example({"ceiling": MOST})
@example({"spent": MOST + 1})
def test_a_message_is_sound_for_both_or_for_none(change: dict[str, Any]) -> None:
    batch = {"gateway_id": "pod-0", "requests": [SOUND | change]}
    assert taken_by_the_stand_in(batch) is taken_by_the_real_one(batch)


def test_gateways_send_as_many_at_once_as_both_take() -> None:
    for count, taken in ((BATCH, True), (BATCH + 1, False)):
        batch = {"gateway_id": "pod-0", "requests": [SOUND] * count}
        assert taken_by_the_stand_in(batch) is taken_by_the_real_one(batch) is taken
