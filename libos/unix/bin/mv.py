"""mv from to."""


def main(process, arguments):
    yield from process.rename(arguments[1], arguments[2])
