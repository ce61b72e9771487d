"""cat [file ...]: the files, or the input, to the output."""


def main(process, arguments):
    for name in arguments[1:] or ["-"]:
        number = 0 if name == "-" else (yield from process.open(name))
        while data := (yield from process.read(number, 4096)):
            yield from process.write(1, data)
        if number:
            yield from process.close(number)
