"""sh [-c commands | script [argument ...]]: a small shell.

a | b && c || d ; e &        words 'in quotes' "$variables"
< in  > out  >> log          NAME=value  $NAME  $1  $?  $!
cd directory, exit [status], wait [pid]
"""

import os
import re
import shlex

TOKENS = re.compile(r"""\|\||&&|>>|[|&;<>]|(?:'[^']*'|"[^"]*"|\\.|[^\s|&;<>'"\\])+""")


class Shell:
    def __init__(self, process, words):
        self.process = process
        self.names = {str(i): word for i, word in enumerate(words)}
        self.names["?"] = "0"
        self.names["!"] = ""
        self.background = []

    def script(self, text):
        for line in text.splitlines():
            yield from self.line(TOKENS.findall(re.sub(r"(^|\s)#.*", "", line)))
        return int(self.names["?"])

    def line(self, tokens):
        pipeline, rule = [], ";"
        for token in [*tokens, ";"]:
            if token not in (";", "&", "&&", "||"):
                pipeline.append(token)
                continue
            failed = self.names["?"] != "0"
            if pipeline and not ((rule == "&&" and failed) or (rule == "||" and not failed)):
                yield from self.pipeline(pipeline, token == "&")
            pipeline, rule = [], token

    def expand(self, token):
        if token.startswith("'"):
            return token[1:-1]
        value = re.sub(r"\$(\w+|[?!])", lambda m: self.names.get(m[1], ""), token)
        return "".join(shlex.split(value)) if value else ""

    def pipeline(self, tokens, in_background):
        process = self.process
        commands = [[]]
        for token in tokens:
            if token == "|":
                commands.append([])
            else:
                commands[-1].append(token)
        if len(commands) == 1 and (yield from self.builtin(commands[0])):
            return
        children, before = [], None
        for i, command in enumerate(commands):
            ends = (yield from process.pipe_ends()) if i < len(commands) - 1 else None
            children.append((yield from process.fork(self.child, command, before, ends)))
            if before is not None:
                yield from process.close(before)
            if ends is not None:
                yield from process.close(ends[1])
                before = ends[0]
        if in_background:
            self.names["!"] = str(children[-1])
            self.background += children
            return
        for child in children:
            _, status = yield from process.wait(child)
        self.names["?"] = str(status)

    def builtin(self, command):
        process = self.process
        if len(command) == 1 and re.match(r"\w+=", command[0]):
            name, _, value = command[0].partition("=")
            self.names[name] = self.expand(value)
        elif command[0] == "cd":
            yield from process.chdir(self.expand(command[1]))
        elif command[0] == "exit":
            yield from process.exit(int(self.expand(command[1])) if command[1:] else 0)
        elif command[0] == "wait":
            wanted = [int(self.expand(word)) for word in command[1:]] or self.background
            for pid in wanted:
                _, status = yield from process.wait(pid)
                self.names["?"] = str(status)
            self.background = [pid for pid in self.background if pid not in wanted]
        else:
            return False
        return True

    def child(self, process, command, before, ends):
        if before is not None:
            yield from process.dup2(before, 0)
            yield from process.close(before)
        if ends is not None:
            yield from process.dup2(ends[1], 1)
            yield from process.close(ends[0])
            yield from process.close(ends[1])
        words, left = [], iter(command)
        for token in left:
            if token in ("<", ">", ">>"):
                flags = os.O_WRONLY | os.O_CREAT
                flags |= {"<": 0, ">": os.O_TRUNC, ">>": os.O_APPEND}[token]
                path = self.expand(next(left))
                number = yield from process.open(path, 0 if token == "<" else flags)
                yield from process.dup2(number, 0 if token == "<" else 1)
                yield from process.close(number)
            else:
                words.append(self.expand(token))
        yield from process.exec(words[0], words)


def main(process, arguments):
    if arguments[1:2] == ("-c",):
        return (yield from Shell(process, arguments[2:]).script(arguments[2]))
    number = (yield from process.open(arguments[1])) if len(arguments) > 1 else 0
    text = (yield from process.read_all(number)).decode()
    if number:
        yield from process.close(number)
    return (yield from Shell(process, arguments[1:]).script(text))
