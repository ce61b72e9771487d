"""Downloaded code: one small language for UDFs, wakeup predicates, packet filters and handlers.

    program = verify(source, signature, budget=1000)
    program.run(...)

`lexer` and `language` turn text into a checked shape (`nodes`), `verifier` proves it safe,
`compiler` makes it fast. `interpreter` is slow and checks everything: the tests set it against the
other two.
"""

from xnfs.sandbox.errors import InterpreterError, VerifyError
from xnfs.sandbox.interpreter import interpret
from xnfs.sandbox.program import Program, verify
from xnfs.sandbox.signature import Buffer, Int, Ints, Limits, Param, Signature

__all__ = [
    "Buffer",
    "Int",
    "InterpreterError",
    "Ints",
    "Limits",
    "Param",
    "Program",
    "Signature",
    "VerifyError",
    "interpret",
    "verify",
]
