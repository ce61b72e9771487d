"""head [-count]: the first lines of the input, ten by default. Reads no further."""


def main(process, arguments):
    left = int(arguments[1][1:]) if len(arguments) > 1 else 10
    while left and (data := (yield from process.read(0, 512))):
        lines = data.splitlines(keepends=True)[:left]
        left -= sum(line.endswith(b"\n") for line in lines)
        yield from process.write(1, b"".join(lines))
