"""Threads that share rows: each takes the next row that nobody has begun, until none is left."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["Crew"]


class Crew:
    """At most `threads` threads (0: one per core), the caller's among them; the others start with the first work."""

    def __init__(self, threads: int, rows: int, name: str):
        self.threads, self._name = min(threads or len(os.sched_getaffinity(0)), rows), name
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[np.ndarray], None], rows: int) -> None:
        """Call `work(taken)` on the threads; `taken`, int64 [1], counts the rows that were begun (`loop.take`)."""
        taken = np.zeros(1, np.int64)
        others = min(self.threads, rows) - 1
        if others > 0 and self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix=self._name)
        futures = [self._pool.submit(work, taken) for _ in range(others)] if self._pool else []
        work(taken)
        for future in futures:
            future.result()

    def close(self) -> None:
        """End the threads; the next work starts them again."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
