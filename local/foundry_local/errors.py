"""The base of every error that ends a start: one sentence for a person, with what to do."""


class PlatformError(RuntimeError):
    """Why the platform, or a part of it, is not there."""
