"""mkdir directory ..."""


def main(process, arguments):
    for path in arguments[1:]:
        yield from process.mkdir(path)
