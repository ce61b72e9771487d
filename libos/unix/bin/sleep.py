"""sleep cycles."""


def main(process, arguments):
    yield from process.sleep(int(arguments[1]))
