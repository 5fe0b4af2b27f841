"""People are kept by Cognito; here is only the outbox for what happens to them."""

from foundry_core.events import Event
from foundry_core.table import write

from functions.app.store.table import outbox


def announce(event: Event) -> None:
    write(create=[outbox(event)])
