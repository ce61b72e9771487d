"""ls [directory]: its names, sorted."""


def main(process, arguments):
    path = arguments[1] if len(arguments) > 1 else "."
    names = yield from process.names(path)
    yield from process.write(1, b"".join(name + b"\n" for name in sorted(names)))
