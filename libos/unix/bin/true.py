"""true: status 0."""


def main(process, arguments):
    yield 1
