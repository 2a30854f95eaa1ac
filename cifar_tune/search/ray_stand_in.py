"""Stands in for an agent of Ray's scheduler, which ends when an agent does: waits until the scheduler is gone."""

import os
import time

if __name__ == "__main__":
    parent = os.getppid()
    while os.getppid() == parent != 1:  # 1 where the scheduler was gone before this line
        time.sleep(1)
