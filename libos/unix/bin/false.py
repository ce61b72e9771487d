"""false: status 1."""


def main(process, arguments):
    yield 1
    return 1
