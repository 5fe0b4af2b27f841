"""The simulated cluster as a process: ``python -m foundry_local.cluster STATE PORT KUBECONFIG``.

The kubeconfig is written when the API answers, so that its presence says so.
"""

import asyncio
import logging
import signal
import sys
from pathlib import Path

from .kube import SimulatedCluster
from .state import write_private

SNAPSHOT_S = 1.0


async def serve(state: Path, port: int, kubeconfig: Path) -> None:
    """Serve until SIGTERM; the state is saved."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    cluster = SimulatedCluster(state_path=state, port=port, snapshot_interval_s=SNAPSHOT_S)
    await cluster.start()
    write_private(kubeconfig, cluster.kubeconfig_yaml())
    await stopping.wait()
    await cluster.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
