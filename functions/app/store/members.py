"""Memberships. Every change also changes the project's version, so that two of them cannot both pass the same check."""

from collections.abc import Callable, Sequence

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.membership import membership_key
from foundry_core.permissions import Level
from foundry_core.table import conflicts, every, page, write

from functions.app.schemas import Member, Membership
from functions.app.store.table import CONFIG, AppTable, MemberItem, ProjectItem, optimistic, outbox


def member_item(project_id: str, member: Member) -> MemberItem:
    key = membership_key(project_id, member.user_id)
    return MemberItem(
        key["pk"], key["sk"], gsi1pk=f"USER#{member.user_id}", gsi1sk=f"PROJECT#{project_id}",
        project_id=project_id, user_id=member.user_id, username=member.username, level=member.level.value,
        added_at_ms=member.added_at_ms,
    )  # fmt: skip


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Member], str | None]:
    items, following = page(MemberItem, f"PROJECT#{project_id}", prefix="MEMBER#", limit=limit, cursor=cursor)
    return [_member(item) for item in items], following


def all_of(project_id: str) -> list[Member]:
    return [_member(item) for item in every(MemberItem, f"PROJECT#{project_id}", prefix="MEMBER#")]


def of_user(user_id: str) -> list[Membership]:
    """Eventually consistent: what was changed within the last second may be missing."""
    items = AppTable.gsi1.query(f"USER#{user_id}")
    return [Membership(project_id=item.project_id, level=Level(item.level)) for item in items]


def put(project_id: str, member: Member, check: Callable[[Sequence[Member]], None], event: Event) -> Member:
    """Add a member or change the level; ``check`` sees the members as they would be and may refuse."""

    def attempt() -> Member:
        project, items = _read(project_id)
        known = items.pop(member.user_id, None)
        kept = member.model_copy(update={"added_at_ms": int(known.added_at_ms)}) if known else member
        check([*(_member(item) for item in items.values()), kept])
        with conflicts("The members were changed by another writer."):
            if known:
                known.level = kept.level.value
                write(save=[known, project], create=[outbox(event)])
            else:
                write(save=[project], create=[member_item(project_id, kept), outbox(event)])
        return kept

    return optimistic(attempt)


def delete(project_id: str, user_id: str, check: Callable[[Sequence[Member]], None], event: Event) -> None:
    def attempt() -> None:
        project, items = _read(project_id)
        gone = items.pop(user_id, None)
        if gone is None:
            raise NotFound(f"{user_id} is not a member of this project.", code="member_not_found")
        check([_member(item) for item in items.values()])
        with conflicts("The members were changed by another writer."):
            write(save=[project], delete=[gone], create=[outbox(event)])

    optimistic(attempt)


def _read(project_id: str) -> tuple[ProjectItem, dict[str, MemberItem]]:
    try:
        project = ProjectItem.get(CONFIG, f"PROJECT#{project_id}", consistent_read=True)
    except ProjectItem.DoesNotExist:
        raise NotFound(f"There is no project {project_id}.", code="project_not_found") from None
    items = every(MemberItem, f"PROJECT#{project_id}", prefix="MEMBER#")
    return project, {item.user_id: item for item in items}


def _member(item: MemberItem) -> Member:
    return Member(
        user_id=item.user_id, username=item.username, level=Level(item.level), added_at_ms=int(item.added_at_ms)
    )
