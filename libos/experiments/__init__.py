"""Experiments on the machine: the published effects, as tables and plots, the same every time.

`xnfs run NAME` prints one; `docs/` says what it shows. Each is a function without arguments that
returns a `Result`; a new one is a line below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from libos.experiments import (
    exceptions,
    latency,
    memory,
    network,
    paging,
    revocation,
    scheduling,
    transfer,
)
from libos.experiments.result import Result

EXPERIMENTS: Final[dict[str, Callable[[], Result]]] = {
    "signals": exceptions.signals,
    "tlb": memory.tlb,
    "page-tables": memory.page_tables,
    "scan": paging.scan,
    "victim": paging.victim,
    "garbage": paging.garbage,
    "revocation": revocation.styles,
    "shares": scheduling.shares,
    "feedback": scheduling.feedback,
    "latency": latency.latency,
    "gang": scheduling.gang,
    "handlers": network.handlers,
    "transfer": transfer.transfer,
    "tenants": scheduling.tenants,
}

__all__ = ["EXPERIMENTS", "Result"]
