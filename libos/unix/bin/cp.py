"""cp from to: one file."""

import os


def main(process, arguments):
    _, old, new = arguments
    source = yield from process.open(old)
    target = yield from process.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    while data := (yield from process.read(source, 4096)):
        yield from process.write(target, data)
