"""The base of every DynamoDB item: one table per domain, ``pk``/``sk`` + ``gsi1``, polymorphic, versioned.

Optimistic locking is PynamoDB's ``VersionAttribute``. ``schema_version`` is upgraded on read by the item class, so
there are no migrations to run.
"""

import base64
import binascii
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, TypeVar

from pynamodb.attributes import (
    DiscriminatorAttribute,
    NumberAttribute,
    UnicodeAttribute,
    VersionAttribute,
)
from pynamodb.connection import Connection, TableConnection
from pynamodb.constants import PAY_PER_REQUEST_BILLING_MODE
from pynamodb.exceptions import PutError, TransactWriteError, UpdateError
from pynamodb.expressions.update import Action
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from foundry_core.errors import Conflict, Invalid
from foundry_core.settings import table_name

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
ItemT = TypeVar("ItemT", bound="Item")
_TRIES = 6


class Item(Model):
    """A typed item. Subclasses name their discriminator, ``SCHEMA_VERSION`` and the upgrades from older versions."""

    SCHEMA_VERSION: ClassVar[int] = 1
    # version n -> function that turns raw attributes of version n into version n + 1
    UPGRADES: ClassVar[dict[int, Upgrade]] = {}

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    kind = DiscriminatorAttribute()
    schema_version = NumberAttribute(default_for_new=lambda: 0)
    gsi1pk = UnicodeAttribute(null=True)
    gsi1sk = UnicodeAttribute(null=True)
    version = VersionAttribute()
    expires_at = NumberAttribute(null=True)  # seconds since the epoch: the time-to-live attribute of every table

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A table has its own kinds: the base item of each domain gets its own register of them."""
        super().__init_subclass__(**kwargs)
        if "Meta" in vars(cls):
            cls.kind = DiscriminatorAttribute()
            cls.kind.__set_name__(cls, "kind")

    def serialize(self, null_check: bool = True, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.schema_version = self.SCHEMA_VERSION
        return super().serialize(null_check, *args, **kwargs)

    @classmethod
    def _get_connection(cls) -> TableConnection:
        # PynamoDB would make a botocore client per item class, at 100 ms each.
        table = super()._get_connection()
        table.connection._client = _connection().client
        return table

    @classmethod
    def from_raw_data(cls: type[ItemT], data: dict[str, Any]) -> ItemT:
        return super().from_raw_data(_upgraded(cls, data))


def _upgraded(base: type[Item], data: dict[str, Any]) -> dict[str, Any]:
    kind = data.get("kind", {}).get("S")
    discriminators = base._get_discriminator_attribute()
    item_class = discriminators.deserialize(kind) if discriminators and kind else base  # type: ignore[no-untyped-call]
    version = int(data.get("schema_version", {}).get("N", "1"))
    while version < item_class.SCHEMA_VERSION:
        data = item_class.UPGRADES[version](data)
        version += 1
    return data


class Gsi1(GlobalSecondaryIndex[Any]):  # type: ignore[no-untyped-call]
    class Meta:
        index_name = "gsi1"
        projection = AllProjection()

    gsi1pk = UnicodeAttribute(hash_key=True)
    gsi1sk = UnicodeAttribute(range_key=True)


def meta(domain: str) -> Any:
    """``Meta`` for the base item of a domain's table."""
    return type(
        "Meta",
        (),
        {"table_name": table_name(domain), "billing_mode": PAY_PER_REQUEST_BILLING_MODE},
    )


@contextmanager
def conflicts(detail: str, *, code: str = "conflict") -> Iterator[None]:
    """Turn a failed condition (taken name, stale version) inside the block into ``Conflict``."""
    try:
        yield
    except (PutError, UpdateError, TransactWriteError) as error:
        if not _condition_failed(error):
            raise
        raise Conflict(detail, code=code, next_action="Read it again and retry.") from error


def _condition_failed(error: PutError | UpdateError | TransactWriteError) -> bool:
    if isinstance(error, TransactWriteError):
        return bool(_reasons(error) & {"ConditionalCheckFailed", "TransactionConflict"})
    return error.cause_response_code == "ConditionalCheckFailedException"


def _reasons(error: TransactWriteError) -> set[str]:
    return {reason.code for reason in error.cancellation_reasons if reason}


def write(
    save: Sequence[Item] = (),
    create: Sequence[Item] = (),
    delete: Sequence[Item] = (),
    touch: Sequence[Item] = (),
    bump: Sequence[Item] = (),
) -> None:
    """One transaction: ``create`` must not exist, ``save`` and ``delete`` must be as they were read. The version of
    ``touch`` (must exist) and of ``bump`` (made when absent, its attributes are set) grows by one whatever it was."""

    def fill(transaction: TransactWrite) -> None:
        for item in create:
            transaction.save(item, condition=type(item).pk.does_not_exist())
        for item in save:
            transaction.save(item)
        for item in delete:
            transaction.delete(item)
        for item in touch:
            transaction.update(_known(item), [_kind(item)], type(item).pk.exists(), add_version_condition=False)
        for item in bump:
            transaction.update(_known(item), _facts(item), add_version_condition=False)

    _commit(fill)


def _known(item: Item) -> Item:
    item.version = item.version or 0  # PynamoDB adds one to a known version, and sets an unknown one to 1
    return item


def _kind(item: Item) -> Action:
    return type(item).kind.set(type(item))


def _facts(item: Item) -> list[Action]:
    item.schema_version = item.SCHEMA_VERSION
    fixed = {"pk", "sk", "version"}
    attributes = type(item).get_attributes()
    return [attributes[name].set(value) for name, value in item.attribute_values.items() if name not in fixed]


def _commit(fill: Callable[[TransactWrite], None]) -> None:
    """Items that several transactions share make DynamoDB cancel one of them: nothing failed, so it is tried again."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with TransactWrite(connection=_connection()) as transaction:
                fill(transaction)
            return
        except TransactWriteError as error:
            if not tries_left or _reasons(error) - {"None"} != {"TransactionConflict"}:
                raise
        time.sleep(random.uniform(0, 0.05 * (_TRIES - tries_left)))  # noqa: S311


@cache
def _connection() -> Connection:
    return Connection()


def page(
    item_class: type[ItemT],
    hash_key: str,
    *,
    index: GlobalSecondaryIndex[Any] | None = None,
    prefix: str = "",
    limit: int = 50,
    cursor: str | None = None,
    newest_first: bool = False,
) -> tuple[list[ItemT], str | None]:
    """One page of the items under ``hash_key`` and the cursor of the next page (``None`` at the end)."""
    source = index if index is not None else item_class
    range_key = Gsi1.gsi1sk if index is not None else Item.sk
    results = source.query(
        hash_key,
        range_key.startswith(prefix) if prefix else None,
        limit=limit,
        last_evaluated_key=_decode_cursor(cursor, hash_key, prefix, index is not None),
        scan_index_forward=not newest_first,
        consistent_read=index is None,
    )
    items: list[ItemT] = list(results)
    return items, _encode_cursor(results.last_evaluated_key)


def every(item_class: type[ItemT], hash_key: str, *, prefix: str = "") -> Iterable[ItemT]:
    """All items under ``hash_key``, following pages; for small sets only."""
    return item_class.query(hash_key, Item.sk.startswith(prefix) if prefix else None, consistent_read=True)


def _encode_cursor(key: dict[str, Any] | None) -> str | None:
    if not key:
        return None
    return base64.urlsafe_b64encode(json.dumps(key, sort_keys=True).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str | None, hash_key: str, prefix: str, by_index: bool) -> dict[str, Any] | None:
    """A cursor is client input: it may only point at what the request is about."""
    if cursor is None:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        names = {"pk", "sk", "gsi1pk", "gsi1sk"} if by_index else {"pk", "sk"}
        valid = key.keys() == names and all(isinstance(v.get("S"), str) and len(v) == 1 for v in key.values())
        partition, sort = ("gsi1pk", "gsi1sk") if by_index else ("pk", "sk")
        if not valid or key[partition]["S"] != hash_key or not key[sort]["S"].startswith(prefix):
            raise ValueError("foreign cursor")
    except (ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise Invalid(
            "This cursor is not one of ours.", code="bad_cursor", next_action="Start at the first page."
        ) from error
    return dict(key)
