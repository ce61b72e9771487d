"""seq last: the numbers from 1, a line each."""


def main(process, arguments):
    for number in range(1, int(arguments[1]) + 1):
        yield from process.write(1, b"%d\n" % number)
