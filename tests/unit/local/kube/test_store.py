import pytest
from foundry_local.kube.errors import ApiError
from foundry_local.kube.resources import CONFIG_MAPS
from foundry_local.kube.store import Change, Store


def config_map(name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "n"}, "data": data}


def test_each_write_has_its_own_revision_and_no_write_has_none() -> None:
    store = Store()
    created = store.create(CONFIG_MAPS, config_map("a", x="1"))
    before = store.revision
    assert store.mutate(CONFIG_MAPS, "n", "a", lambda obj: None) == created
    assert store.revision == before, "a write without a difference is none"
    changed = store.mutate(CONFIG_MAPS, "n", "a", lambda obj: obj["data"].update(x="2"))
    assert changed is not None and int(changed["metadata"]["resourceVersion"]) == store.revision == before + 1


def test_references_handed_out_never_change() -> None:
    store = Store()
    first = store.create(CONFIG_MAPS, config_map("a", x="1"))
    store.mutate(CONFIG_MAPS, "n", "a", lambda obj: obj["data"].update(x="2"))
    assert first["data"] == {"x": "1"}


def test_listeners_hear_of_changes_in_order() -> None:
    store, heard = Store(), list[Change]()
    unsubscribe = store.subscribe(heard.append)
    store.create(CONFIG_MAPS, config_map("a"))
    store.mutate(CONFIG_MAPS, "n", "a", lambda obj: obj["data"].update(x="2"))
    store.remove(CONFIG_MAPS, "n", "a")
    unsubscribe()
    store.create(CONFIG_MAPS, config_map("b"))
    assert [change.type for change in heard] == ["ADDED", "MODIFIED", "DELETED"]
    assert [change.revision for change in heard] == sorted({change.revision for change in heard})
    assert heard[2].obj["metadata"]["resourceVersion"] == str(heard[2].revision)


def test_history_is_bounded_and_says_so() -> None:
    store = Store(history_length=3)
    store.create(CONFIG_MAPS, config_map("a"))
    start = store.revision
    for number in range(5):
        store.create(CONFIG_MAPS, config_map(f"b{number}"))
    with pytest.raises(ApiError) as caught:
        store.changes_since(start)
    assert caught.value.code == 410
    assert [change.obj["metadata"]["name"] for change in store.changes_since(store.revision - 2)] == ["b3", "b4"]


def test_dump_and_load() -> None:
    store = Store()
    store.create(CONFIG_MAPS, config_map("a", x="1"))
    copy = Store()
    copy.load(store.dump())
    assert copy.get(CONFIG_MAPS, "n", "a") == store.get(CONFIG_MAPS, "n", "a")
    assert copy.revision == store.revision
    with pytest.raises(ApiError, match="too old resource version"):
        copy.changes_since(1)


def test_name_taken_and_not_there() -> None:
    store = Store()
    store.create(CONFIG_MAPS, config_map("a"))
    with pytest.raises(ApiError, match='configmaps "a" already exists'):
        store.create(CONFIG_MAPS, config_map("a"))
    with pytest.raises(ApiError, match='configmaps "b" not found'):
        store.get(CONFIG_MAPS, "n", "b")
