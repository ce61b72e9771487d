"""kill [-number] pid ...: send a signal, 15 by default."""


def main(process, arguments):
    words = list(arguments[1:])
    number = int(words.pop(0)[1:]) if words[0].startswith("-") else 15
    for word in words:
        yield from process.kill(int(word), number)
