"""Errors of the simulator: one sentence each, naming the field or value that is wrong."""


class SimulatorError(ValueError):
    """Base of every error that a caller's input can cause."""


class ArchitectureError(SimulatorError):
    """The model is unknown or its config cannot be understood."""


class DeviceError(SimulatorError):
    """The device is unknown or its facts are malformed."""


class PrecisionError(SimulatorError):
    """The number format is unknown or not usable where it was asked for."""


class ConfigurationError(SimulatorError):
    """The parallelism, precision or limits do not fit the architecture."""
