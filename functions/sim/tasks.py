"""Steps of the flows ``simulate`` and ``recommend``. The table keeps what is large; plans pass through: at most 20."""

from foundry_core.tasks import Output, TaskContext, Tasks, waiting
from foundry_sim.search.plans import Plan, SimulationResult

from functions.sim import recommendations, service, store
from functions.sim.schemas import Outcome, Simulation

tasks = Tasks("sim")


def _simulation(context: TaskContext) -> Simulation:
    return store.load(context.run.project_id or "", context.run.subject_id)


@tasks.task("resolve_inputs")
def resolve_inputs(context: TaskContext) -> Output:
    """Look names up again: what the request named may have changed since. Raises ``ModelNotFound``. A request can be
    larger than the state of a flow, so ``search`` reads it again."""
    service.resolved_for(_simulation(context))
    return {}


@tasks.task("search")
def search(context: TaskContext) -> Output:
    result = service.search(service.resolved_for(_simulation(context)))
    outcome = service.outcome_of(result)
    return {
        "feasible": result.feasible,
        "plans": [plan.model_dump(mode="json") for plan in result.plans],
        "nearest": result.nearest.plan.model_dump(mode="json") if result.nearest else None,
        "binding_constraint": result.binding_constraint,
        "outcome": outcome.model_dump(mode="json"),
        "detail": _detail(result),
    }


def _detail(result: SimulationResult) -> str:
    return f"{result.considered:,} configurations, {result.feasible_count:,} meet the service levels"


@tasks.task("store_plans")
def store_plans(context: TaskContext) -> Output:
    found = context.input["search"]["output"]
    plans = [Plan(**plan) for plan in found["plans"]]
    run = context.run
    simulation = service.complete(run.project_id or "", run.subject_id, Outcome(**found["outcome"]), plans)
    return {"simulation_id": simulation.id, "feasible": simulation.feasible, "plan_count": simulation.plan_count}


@tasks.task("recommend")
def recommend(context: TaskContext) -> Output:
    """One page of models on all clusters; ``waiting`` while there are more pages."""
    clusters, page = (context.input[step]["output"] for step in ("list_clusters", "list_models"))
    for model in page["models"]:
        recommendations.compute(model, clusters["clusters"], context.run.subject_id)
    detail = f"{page['seen']} models on {len(clusters['clusters'])} clusters"
    if page["cursor"]:
        return waiting(detail)
    return {"status": "done", "detail": detail, "models": page["seen"], "clusters": len(clusters["clusters"]),
            "left_out": [*clusters["left_out"], *page["left_out"]]}  # fmt: skip
