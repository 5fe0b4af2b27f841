"""Items of a table: kinds, schema upgrades, transactions, counters and cursors."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from foundry_core import aws, table
from foundry_core.errors import Conflict, Invalid
from foundry_core.table import Gsi1, Item, conflicts, every, meta, page, write
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import CancellationReason, PutError, TransactWriteError, VerboseClientError
from pynamodb.transactions import TransactWrite

pytestmark = pytest.mark.usefixtures("aws_tables")


class Things(Item):
    Meta = meta("model")
    gsi1 = Gsi1()


class Lamp(Things, discriminator="lamp"):
    SCHEMA_VERSION = 3
    UPGRADES = {  # noqa: RUF012
        1: lambda raw: {**raw, "watts": {"N": str(int(raw["power"]["N"]) * 1000)}},
        2: lambda raw: {**raw, "label": {"S": f"{raw['label']['S']}!"}},
    }

    watts = NumberAttribute()
    label = UnicodeAttribute(default="lamp")


class Tally(Things, discriminator="tally"):
    note = UnicodeAttribute(null=True)


class Elsewhere(Item):
    Meta = meta("sim")


class OtherLamp(Elsewhere, discriminator="lamp"):
    watts = UnicodeAttribute()


def lamp(number: int, pk: str = "ROOM", **fields: Any) -> Lamp:
    return Lamp(pk, f"LAMP#{number}", watts=5, **fields)


def test_tables_have_kinds_of_their_own() -> None:
    lamp(1).save()
    OtherLamp("ROOM", "LAMP#1", watts="many").save()
    assert type(Things.get("ROOM", "LAMP#1")) is Lamp and type(Elsewhere.get("ROOM", "LAMP#1")) is OtherLamp


def test_an_old_item_is_upgraded_when_read_and_stays_so_when_written() -> None:
    old = {"pk": "ROOM", "sk": "LAMP#1", "kind": "lamp", "label": "old"}
    raw = {name: {"S": value} for name, value in old.items()}
    numbers = {"power": {"N": "2"}, "schema_version": {"N": "1"}, "version": {"N": "7"}}
    aws.client("dynamodb").put_item(TableName="foundry-test-model", Item={**raw, **numbers})
    item = Lamp.get("ROOM", "LAMP#1")
    assert (item.watts, item.label, item.version) == (2000, "old!", 7)
    item.save()
    again = Things.get("ROOM", "LAMP#1")
    assert (again.label, again.schema_version, again.version) == ("old!", 3, 8)


def test_all_or_nothing() -> None:
    lamp(1).save()
    with pytest.raises(Conflict), conflicts("taken"):
        write(create=[lamp(2), lamp(1)])
    assert [item.sk for item in every(Lamp, "ROOM")] == ["LAMP#1"]


def test_a_stale_writer_is_refused() -> None:
    lamp(1).save()
    first, second = (Lamp.get("ROOM", "LAMP#1") for _ in range(2))
    first.save()
    for stale in ({"save": [second]}, {"delete": [second]}):
        with pytest.raises(Conflict), conflicts("stale"):
            write(**stale)  # type: ignore[arg-type]
    assert Lamp.get("ROOM", "LAMP#1").version == 2


def test_touch_needs_the_item_and_bump_makes_it() -> None:
    with pytest.raises(Conflict), conflicts("gone"):
        write(touch=[lamp(1)])
    for expected in (1, 2):
        write(bump=[Tally("ROOM", "TALLY", note=f"n{expected}")])
        tally = Tally.get("ROOM", "TALLY")
        assert (tally.version, tally.note, tally.schema_version) == (expected, f"n{expected}", 1)
    lamp(1, label="kept").save()
    stale = Lamp.get("ROOM", "LAMP#1")
    Lamp.get("ROOM", "LAMP#1").save()
    write(touch=[stale])
    assert (Lamp.get("ROOM", "LAMP#1").version, Lamp.get("ROOM", "LAMP#1").label) == (3, "kept")


def test_a_counter_that_everybody_bumps_counts_everybody() -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: write(create=[lamp(n)], bump=[Tally("ROOM", "TALLY")]), range(20)))
    assert Tally.get("ROOM", "TALLY").version == 20


def cancelled(*codes: str) -> TransactWriteError:
    reasons = [CancellationReason(code=code) for code in codes]
    answer: Any = {"Error": {"Code": "TransactionCanceledException", "Message": "cancelled"}}
    return TransactWriteError(
        "cancelled", VerboseClientError(answer, "TransactWriteItems", cancellation_reasons=reasons)
    )


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[TransactWriteError]:
    """What DynamoDB answers to the next transactions (moto never lets two collide)."""
    answers: list[TransactWriteError] = []
    commit = TransactWrite._commit

    def answer(self: TransactWrite) -> Any:
        if answers:
            raise answers.pop(0)
        return commit(self)

    monkeypatch.setattr(TransactWrite, "_commit", answer)
    monkeypatch.setattr(table.time, "sleep", lambda seconds: None)
    return answers


def test_a_collision_of_transactions_is_tried_again(refused: list[TransactWriteError]) -> None:
    refused += [cancelled("None", "TransactionConflict")] * 3
    write(create=[lamp(1)], bump=[Tally("ROOM", "TALLY")])
    assert Lamp.get("ROOM", "LAMP#1").version == Tally.get("ROOM", "TALLY").version == 1


def test_a_condition_that_failed_is_not(refused: list[TransactWriteError]) -> None:
    refused += [cancelled("ConditionalCheckFailed", "TransactionConflict")] * 2
    with pytest.raises(Conflict), conflicts("taken"):
        write(create=[lamp(1)])
    assert len(refused) == 1


def test_collisions_without_end_are_a_conflict_and_other_faults_are_not(refused: list[TransactWriteError]) -> None:
    refused += [cancelled("TransactionConflict")] * 6
    with pytest.raises(Conflict), conflicts("busy"):
        write(create=[lamp(1)])
    refused += [cancelled("ThrottlingError")]
    with pytest.raises(TransactWriteError), conflicts("busy"):
        write(create=[lamp(1)])


def test_a_fault_of_the_store_is_no_conflict() -> None:
    aws.client("dynamodb").delete_table(TableName="foundry-test-model")
    with pytest.raises(PutError), conflicts("taken"):
        lamp(1).save()


def test_pages_by_prefix_both_ways() -> None:
    for number in range(5):
        lamp(number).save()
        Tally("ROOM", f"TALLY#{number}").save()
        lamp(number, pk="HALL").save()
    for newest_first in (False, True):
        seen, cursor = [], None
        while not seen or cursor:
            items, cursor = page(Lamp, "ROOM", prefix="LAMP#", limit=2, cursor=cursor, newest_first=newest_first)
            seen += [item.sk for item in items]
        assert seen == sorted((f"LAMP#{n}" for n in range(5)), reverse=newest_first)


def test_a_cursor_points_into_its_own_list_only() -> None:
    for number in range(3):
        lamp(number).save()
        Tally("ROOM", f"TALLY#{number}").save()
        lamp(number, pk="HALL", gsi1pk="ALL", gsi1sk=f"x{number}").save()
    _, lamps = page(Lamp, "ROOM", prefix="LAMP#", limit=1)
    _, hall = page(Lamp, "HALL", prefix="LAMP#", limit=1)
    _, indexed = page(Lamp, "ALL", index=Things.gsi1, limit=1)
    _, tallies = page(Tally, "ROOM", prefix="TALLY#", limit=1)
    assert page(Lamp, "ROOM", prefix="LAMP#", limit=9, cursor=lamps)[1] is None
    for foreign in (hall, indexed, tallies):
        with pytest.raises(Invalid, match="cursor"):
            page(Lamp, "ROOM", prefix="LAMP#", cursor=foreign)


@pytest.mark.parametrize("cursor", ["", "!", "e30", "bnVsbA", "W10", "eyJwayI6eyJTIjoiUk9PTSJ9fQ", "Á", "=" * 9])
def test_a_cursor_is_hostile_input(cursor: str) -> None:
    with pytest.raises(Invalid, match="cursor"):
        page(Lamp, "ROOM", cursor=cursor)
