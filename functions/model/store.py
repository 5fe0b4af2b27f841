"""The model table: the only file that knows it.

A model is three items: its facts, its config (apart, because a list of models does not need it), and the claim on its
name.
"""

from typing import Any

from foundry_core.errors import NotFound
from foundry_core.events import Event, OutboxFields, outbox_keys
from foundry_core.table import Gsi1, Item, conflicts, meta, page, write
from pynamodb.attributes import JSONAttribute, UnicodeAttribute

from functions.model.schemas import Model

_ALL = "MODELS"


class ModelTable(Item):
    Meta = meta("model")
    gsi1 = Gsi1()


class ModelItem(ModelTable, discriminator="model"):
    data = JSONAttribute()


class ConfigItem(ModelTable, discriminator="config"):
    config = JSONAttribute()


class NameItem(ModelTable, discriminator="name"):
    model_id = UnicodeAttribute()


class ModelOutbox(OutboxFields, ModelTable, discriminator="outbox"):
    pass


def insert(model: Model, config: dict[str, Any], event: Event) -> Model:
    """``Conflict`` with code ``name_taken`` when the name belongs to another model."""
    pk = f"MODEL#{model.id}"
    item = ModelItem(pk, "MODEL", gsi1pk=_ALL, gsi1sk=pk, data=model.model_dump(mode="json", exclude={"version"}))
    name = NameItem(f"NAME#{model.name}", "NAME", model_id=model.id)
    with conflicts(f"There is a model named {model.name} already.", code="name_taken"):
        write(create=[item, ConfigItem(pk, "CONFIG", config=config), name, ModelOutbox(**outbox_keys(event))])
    return _model(item)


def load(model_id: str) -> Model:
    return _model(_item(model_id))


def load_config(model_id: str) -> dict[str, Any]:
    config: dict[str, Any] = _config_item(model_id).config
    return config


def page_of(limit: int, cursor: str | None) -> tuple[list[Model], str | None]:
    items, following = page(ModelItem, _ALL, index=ModelTable.gsi1, limit=limit, cursor=cursor)
    return [_model(item) for item in items], following


def delete(model_id: str, event: Event) -> None:
    """The model, its config and its claim on the name, all or nothing."""
    item = _item(model_id)
    name = NameItem.get(f"NAME#{item.data['name']}", "NAME", consistent_read=True)
    with conflicts(f"Model {model_id} was changed by another writer."):
        write(delete=[item, _config_item(model_id), name], create=[ModelOutbox(**outbox_keys(event))])


def _item(model_id: str) -> ModelItem:
    try:
        return ModelItem.get(f"MODEL#{model_id}", "MODEL", consistent_read=True)
    except ModelItem.DoesNotExist as error:
        raise _missing(model_id) from error


def _config_item(model_id: str) -> ConfigItem:
    try:
        return ConfigItem.get(f"MODEL#{model_id}", "CONFIG", consistent_read=True)
    except ConfigItem.DoesNotExist as error:
        raise _missing(model_id) from error


def _missing(model_id: str) -> NotFound:
    return NotFound(f"There is no model {model_id}.", code="model_not_found", next_action="foundry models list")


def _model(item: ModelItem) -> Model:
    return Model(**item.data, version=int(item.version or 0))
