"""sort [-n]: the lines of the input in order, or in the order of their numbers."""


def main(process, arguments):
    lines = (yield from process.read_all(0)).splitlines(keepends=True)
    yield len(lines) * max(1, len(lines)).bit_length()
    by_number = arguments[1:] == ("-n",)
    lines.sort(key=int if by_number else None)
    yield from process.write(1, b"".join(lines))
