"""What the kernel refuses, as the errno of a request."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Protocol, TypeVar, cast

from libfs.posix.interface import FsError
from xnfs import (
    AclRefused,
    CorruptionError,
    DeviceError,
    NoFrames,
    NoSpace,
    NotFree,
    ReadOnly,
    XnError,
)

F = TypeVar("F", bound=Callable[..., Any])

_ERRNOS: Final = (
    (NoSpace, errno.ENOSPC),
    (NotFree, errno.ENOSPC),
    (NoFrames, errno.ENOMEM),
    (ReadOnly, errno.EROFS),
    (DeviceError, errno.EIO),
    (CorruptionError, errno.EUCLEAN),
)


class Answering(Protocol):
    """Who has methods that are requests."""

    def _answer(self, error: XnError) -> FsError:
        """What the caller is told; what else follows from the error has been done."""


def answers(method: F) -> F:
    """The boundary of a request: errors of the kernel leave as `FsError`."""

    @wraps(method)
    def request(self: Answering, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except XnError as error:
            raise self._answer(error) from error

    return cast(F, request)


def answer(error: XnError) -> FsError:
    """The errno of an error of the kernel, with its words."""
    if isinstance(error, AclRefused):
        return FsError(error.errno)
    if isinstance(error, DeviceError) and error.errno == errno.ENOSPC:
        return FsError(errno.ENOSPC, str(error))  # the host's disk is full: it may pass
    number = next((n for kind, n in _ERRNOS if isinstance(error, kind)), errno.EIO)
    return FsError(number, str(error))
