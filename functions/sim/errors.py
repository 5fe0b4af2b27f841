"""Errors of the simulation flow. State machines match them by class name."""

from foundry_core.errors import Invalid


class ModelNotFound(Invalid):
    default_code = "model_not_found"


class InvalidInput(Invalid):
    default_code = "simulation_invalid"
