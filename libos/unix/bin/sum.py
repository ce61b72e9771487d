"""sum: of the numbers in the input."""


def main(process, arguments):
    words = (yield from process.read_all(0)).split()
    yield len(words)
    yield from process.write(1, b"%d\n" % sum(map(int, words)))
