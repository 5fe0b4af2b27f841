"""The registry's step of the flow ``recommend``: the models, page by page."""

import json
from typing import Any

from foundry_core.errors import NotFound
from foundry_core.tasks import Output, TaskContext, Tasks, waiting

from functions.model import service
from functions.model.schemas import ModelDetail

MAX_MODELS = 200
_PAGE = 3
_MAX_CONFIG_BYTES = 40_000  # real ones have a few thousand; a page of them travels through the flow
tasks = Tasks("model")


@tasks.task("list_models")
def list_models(context: TaskContext) -> Output:
    """The next models with their configs, ``seen`` of them so far; ``waiting`` while there are more. Nothing without a
    cluster."""
    if not context.input["list_clusters"]["output"]["clusters"]:
        return {"models": [], "seen": 0, "cursor": None, "left_out": [], "detail": "No cluster to recommend"}
    before = context.input.get("list_models", {}).get("output") or {"seen": 0, "cursor": None, "left_out": []}
    items, cursor = service.page_of(_PAGE, before["cursor"])
    models = [model for item in items if (model := _known(item.id))]
    seen = before["seen"] + len(items)
    fitting = [model for model in models if len(json.dumps(model.config)) <= _MAX_CONFIG_BYTES]
    left_out = [*before["left_out"], *_too_large(models, fitting), *_too_many(seen, cursor)]
    output = {"models": [_facts(model) for model in fitting], "seen": seen, "left_out": left_out}
    if cursor is None or seen >= MAX_MODELS:
        return {**output, "cursor": None, "detail": f"{seen} models"}
    return waiting(f"{seen} models so far", **output, cursor=cursor)


def _known(model_id: str) -> ModelDetail | None:
    """None when it was deleted meanwhile."""
    try:
        return service.get(model_id)
    except NotFound:
        return None


def _facts(model: ModelDetail) -> dict[str, Any]:
    return {"id": model.id, "name": model.name, "config": model.config}


def _too_large(models: list[ModelDetail], fitting: list[ModelDetail]) -> list[dict[str, str]]:
    reason = f"Its config has more than {_MAX_CONFIG_BYTES:,} bytes."
    return [{"name": model.name, "reason": reason} for model in models if model not in fitting]


def _too_many(seen: int, cursor: str | None) -> list[dict[str, str]]:
    if cursor is None or seen < MAX_MODELS:
        return []
    return [{"name": "others", "reason": f"A run takes {MAX_MODELS} models at most."}]
