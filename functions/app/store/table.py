"""The items of the app table, and how they are written.

| pk | sk | what |
|---|---|---|
| ``CONFIG`` | ``PROJECT#<id>``, ``KEY#<project id>#<id>``, ``ENDPOINT#<name>`` | what gateways serve: one consistent query reads it all |
| ``CONFIG`` | ``ENDPOINT#<adapter>`` | that an endpoint's adapter has the name: one name space with endpoints |
| ``CONFIG`` | ``CREDENTIAL#<project id>#<name>`` | a provider's key, sealed |
| ``CONFIG`` | ``BLOCKING#<id>`` | a rule by which gateways refuse callers |
| ``CONFIG`` | ``VERSION`` | grows with every change of the above, in the same transaction |
| ``PROJECT#<id>`` | ``MEMBER#<user id>`` | memberships; by user over gsi1 |
| ``NAME#<scope>#<name>`` | ``NAME`` | the claim on a name |
| ``DEPLOYMENT#<id>`` | ``ENDPOINT`` | which endpoint a deployment answers for |
| ``GATEWAYS`` | ``GATEWAY#<id>`` | registered gateways; ``TOKEN#<sha256>``/``TOKEN`` finds one by its token |
| ``FILES#<project id>#READY`` | ``<file id>`` | files; ``…#PENDING`` those whose bytes have not come yet |
| ``BATCHES#<project id>`` | ``<batch id>`` | batches; open ones over gsi1 by when the next gateway may claim them |
| ``BUDGET#<scope>#<kind>`` | ``TOTAL`` or ``WINDOW#<ms>`` | a counter with its open leases |
"""  # noqa: E501

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict
from foundry_core.events import Event, OutboxFields, outbox_keys
from foundry_core.ids import new_id
from foundry_core.table import Gsi1, Item, meta
from pynamodb.attributes import JSONAttribute, NumberAttribute, UnicodeAttribute

R = TypeVar("R")
ItemT = TypeVar("ItemT", bound=Item)
CONFIG = "CONFIG"
_TRIES = 6


class AppTable(Item):
    Meta = meta("app")
    gsi1 = Gsi1()


class ProjectItem(AppTable, discriminator="project"):
    data = JSONAttribute()


class MemberItem(AppTable, discriminator="member"):
    project_id = UnicodeAttribute()
    user_id = UnicodeAttribute()
    username = UnicodeAttribute(default="")
    level = UnicodeAttribute()
    added_at_ms = NumberAttribute()


class KeyItem(AppTable, discriminator="key"):
    sha256 = UnicodeAttribute()
    data = JSONAttribute()


class EndpointItem(AppTable, discriminator="endpoint"):
    data = JSONAttribute()


class AdapterItem(AppTable, discriminator="adapter"):
    endpoint_name = UnicodeAttribute()


class CredentialItem(AppTable, discriminator="credential"):
    sealed = JSONAttribute()
    data = JSONAttribute()


class BlockingItem(AppTable, discriminator="blocking_rule"):
    data = JSONAttribute()


class DeploymentItem(AppTable, discriminator="deployment"):
    endpoint_name = UnicodeAttribute()


class NameItem(AppTable, discriminator="name"):
    subject_id = UnicodeAttribute()


class VersionItem(AppTable, discriminator="config_version"):
    stamp = UnicodeAttribute()  # unlike the number, never repeated: not even by a table that was restored


class GatewayItem(AppTable, discriminator="gateway"):
    token_sha256 = UnicodeAttribute()
    data = JSONAttribute()


class TokenItem(AppTable, discriminator="gateway_token"):
    gateway_id = UnicodeAttribute()


class BudgetItem(AppTable, discriminator="budget"):
    committed = NumberAttribute()
    leases = JSONAttribute()


class FileItem(AppTable, discriminator="file"):
    folder = UnicodeAttribute()
    parts = JSONAttribute()
    data = JSONAttribute()


class BatchItem(AppTable, discriminator="batch"):
    data = JSONAttribute()


class AppOutbox(OutboxFields, AppTable, discriminator="outbox"):
    pass


def outbox(event: Event) -> AppOutbox:
    return AppOutbox(**outbox_keys(event))


def config_version() -> VersionItem:
    """To bump in every transaction that changes what gateways serve."""
    return VersionItem(CONFIG, "VERSION", stamp=new_id("cfg"))


def claim(scope: str, name: str, subject_id: str) -> NameItem:
    return NameItem(f"NAME#{scope}#{name}", "NAME", subject_id=subject_id)


def claimed(scope: str, name: str) -> NameItem | None:
    return one_or_none(NameItem, f"NAME#{scope}#{name}", "NAME")


@contextmanager
def naming(scope: str, name: str, subject_id: str) -> Iterator[None]:
    """Tell a taken name (``name_taken``) from another lost race inside the block."""
    try:
        yield
    except Conflict:
        owner = claimed(scope, name)
        if owner is None or owner.subject_id == subject_id:
            raise
        raise Conflict(f"The name {name!r} is taken.", code="name_taken", next_action="Choose another name.") from None


def optimistic(attempt: Callable[[], R]) -> R:
    """Read-change-write again when another writer was faster; a rule that was broken is not tried again."""
    for _ in range(_TRIES - 1):
        try:
            return attempt()
        except Conflict as error:
            if error.code != "conflict":
                raise
    return attempt()


def living(
    item_class: type[ItemT], pk: str, page_size: int, after: str | None = None, newest_first: bool = True
) -> Iterator[ItemT]:
    """The items behind the one with the sort key ``after``, read as they are taken."""
    behind = None if after is None else Item.sk < after if newest_first else Item.sk > after
    found = item_class.query(pk, behind, page_size=page_size, scan_index_forward=not newest_first, consistent_read=True)
    return (item for item in found if not _is_over(item))


def one_or_none(item_class: type[ItemT], pk: str, sk: str) -> ItemT | None:
    try:
        return item_class.get(pk, sk, consistent_read=True)
    except item_class.DoesNotExist:
        return None


def living_one(item_class: type[ItemT], pk: str, sk: str) -> ItemT | None:
    item = one_or_none(item_class, pk, sk)
    return None if item is None or _is_over(item) else item


def _is_over(item: Item) -> bool:
    """The table lets go of items some time after they have expired."""
    return int(item.expires_at or 0) * 1000 <= now_ms()


def first_of(found: Iterable[R], limit: int) -> tuple[list[R], bool]:
    """A page, and whether there are more."""
    taken = list(islice(found, limit + 1))
    return taken[:limit], len(taken) > limit
