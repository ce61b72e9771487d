"""grep [-v] text: lines of the input that contain it. Status 1 if there are none."""


def main(process, arguments):
    without = arguments[1] == "-v"
    text = arguments[-1].encode()
    data = yield from process.read_all(0)
    found = [line for line in data.splitlines(keepends=True) if (text in line) != without]
    yield len(data) // 8
    yield from process.write(1, b"".join(found))
    return 0 if found else 1
