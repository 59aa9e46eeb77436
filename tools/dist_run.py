"""torchrun, without its traceback after a process that has already said why it stopped.

Called by ``dist_train.sh`` and ``dist_test.sh``; takes torchrun's arguments.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    try:
        main()
    except ChildFailedError:
        sys.exit(1)
