"""Where slices run: in this process, in others on this machine, or on a Dask cluster.

All three are `Executor`s of `concurrent.futures`, so the campaign knows no difference. Dask is an
optional extra (`pip install "xnfs[dask]"`) and imported only when it is asked for. Each gives the
number of slices that it runs at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ClusterError(Exception):
    """No cluster; the text says why."""


class Serial(Executor):
    """Runs a call when it is submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """See Executor. The future that comes back is done."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def processes(jobs: int) -> Iterator[tuple[Executor, int]]:
    """So many processes on this machine; none but this one for 1."""
    if jobs <= 1:
        yield Serial(), 1
        return
    # Forked workers have what this process has loaded: the types that it has verified, above all.
    kind = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(kind)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_quiet) as pool:
        try:
            yield pool, jobs
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _quiet() -> None:
    """Ctrl-C is for the process that hands out the work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def dask(address: str, jobs: int) -> Iterator[tuple[Executor, int]]:
    """A cluster: the address of its scheduler, or "local" for one with `jobs` workers here.

    Its workers need this package, and the module of the file system on trial. Raises ClusterError.
    """
    try:
        import distributed
    except ImportError:
        raise ClusterError('Dask is not installed: pip install "xnfs[dask]"') from None
    with _client(distributed, address, jobs) as client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ClusterError(f"the cluster at {address} has no workers")
        yield client.get_executor(pure=False), threads


@contextmanager
def _client(distributed: Any, address: str, jobs: int) -> Iterator[Any]:
    try:
        if address == "local":
            cluster = distributed.LocalCluster(
                n_workers=jobs, threads_per_worker=1, dashboard_address=None
            )
        else:
            cluster = address
        client = distributed.Client(cluster, timeout=10)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"no Dask scheduler at {address}: {error}") from None
    try:
        yield client
    finally:
        client.close()
        if address == "local":
            cluster.close()
