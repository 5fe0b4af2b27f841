"""The twin engine: an OpenAI-compatible server with vLLM's paths and metrics and the simulator's timing.

It computes no model. It replays the step times that `foundry_sim` predicts through a real continuous-batching loop,
so that everything around an engine can be run and measured without a GPU. Each response says `x-foundry-source: twin`.
"""

from foundry_local.twin.options import EngineOptions, OptionsError, parse_options
from foundry_local.twin.server import TwinServer, build_twin
from foundry_local.twin.timing import EngineModel, StartupError, model_for

__all__ = [
    "EngineModel",
    "EngineOptions",
    "OptionsError",
    "StartupError",
    "TwinServer",
    "build_twin",
    "model_for",
    "parse_options",
]
