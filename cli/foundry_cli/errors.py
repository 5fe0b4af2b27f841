"""A mistake is told in one line with the next command; a traceback is a bug of ours."""


class CliError(Exception):
    """Ends the command with exit status 1 after printing ``message`` and, if given, the command to try next."""

    def __init__(self, message: str, next_command: str | None = None) -> None:
        super().__init__(message)
        self.message, self.next_command = message, next_command
