"""What ``test_stopping.py`` runs in each of three processes: RANK and a folder.

The first process is impatient, and the last one answers late. Each prints whether it
takes it that all stop after the same iteration.
"""

import sys
import time
from pathlib import Path

import torch.distributed as dist

from lm4ve.runner import stop_agreement
from lm4ve.runner.stopping import SignalHandler

#: How long each process waits for the answers of the others, in seconds.
PATIENCE = (0.5, 100.0, 100.0)
#: When each process begins to look into the store.
DELAY = (0.0, 0.0, 4.0)


def main() -> None:
    rank = int(sys.argv[1])
    store = f'file://{Path(sys.argv[2]) / "store"}'
    dist.init_process_group('gloo', store, rank=rank, world_size=3)
    stop_agreement.INTERVAL = 0.05
    stop_agreement.PATIENCE = PATIENCE[rank]
    signals = SignalHandler()
    signals.asked = 10
    agreement = stop_agreement.StopAgreement(signals, done=rank)
    time.sleep(DELAY[rank])
    agreement.start()
    done = rank
    while not agreement.stops_after(done):
        time.sleep(0.01)
        done += 1
    print(agreement.is_decided)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
