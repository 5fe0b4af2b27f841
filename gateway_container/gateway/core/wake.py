"""Orders to wake deployments that sleep."""

from gateway.core.limit import LeaseBook
from gateway.core.snapshot import Deployment


def order_wake(book: LeaseBook, deployment: Deployment, now_ms: int) -> None:
    """Ask for one lease: of all gateways one gets it, and its grant is the order."""
    order = book.scope(f"deployment:{deployment.id}", "wake", 1)
    leases = book.reserve((order,), (1, 0, 0), now_ms)
    if isinstance(leases, list):  # ordered already; a lease that is held on to never lets it be ordered again
        leases[0].settle(1, 0)
