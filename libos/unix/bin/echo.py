"""echo word ...: the words and a newline."""


def main(process, arguments):
    yield from process.write(1, " ".join(arguments[1:]).encode() + b"\n")
