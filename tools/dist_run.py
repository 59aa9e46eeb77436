"""Start several processes of a script with torchrun, for ``dist_train.sh`` and ``dist_test.sh``.

Usage: ``python tools/dist_run.py GPUS SCRIPT [arguments of the script]``. A single node uses a free
port; for several nodes, set ``NNODES``, ``NODE_RANK``, ``MASTER_ADDR`` and ``PORT``.
"""

import os
import sys
from collections.abc import Mapping

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main


def nodes(env: Mapping[str, str]) -> list[str]:
    """Return torchrun's arguments for nodes and ports."""
    if env.get("NNODES", "1") == "1" and "PORT" not in env:
        return ["--standalone"]
    return [
        f"--nnodes={env.get('NNODES', '1')}",
        f"--node_rank={env.get('NODE_RANK', '0')}",
        f"--master_addr={env.get('MASTER_ADDR', '127.0.0.1')}",
        f"--master_port={env.get('PORT', '29500')}",
    ]


if __name__ == "__main__":
    gpus, *script = sys.argv[1:]
    try:
        main([*nodes(os.environ), f"--nproc_per_node={gpus}", *script])
    except ChildFailedError:
        # The process has printed its error; torchrun's traceback would hide it.
        sys.exit(1)
