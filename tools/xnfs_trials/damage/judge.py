"""One damaged image, and what XN and its file systems make of it.

Three outcomes are right, as long as each is what it says:

- `refused`, `reported`: an error of one line; the image can't be opened, or fsck says what it can't
  mend. Nothing that was fine is freed or changed.
- `repaired`: fsck mends it, a second fsck finds nothing, everything can be read, a file can be
  written, and what was fine is there.
- `valid`: fsck finds nothing, and the same holds without repair.

The image is also mounted as it is, by somebody who knows of no damage, and written to: errors are
answers then, but what a wrong checksum should have kept back may never be shown as good, and a
repair afterwards must still find what was fine.

Everything else is a defect, named by its kind: `traceback`, `hang`, `memory`, `message` (no clean
line), `silent` (wrong bytes without an error), `lost`, `again` (a second fsck finds something),
`unsound` (fsck is content, the mount is not), `wrote` (fsck -n did).
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from libfs.formats import of_type, rebuild
from libfs.posix.interface import FileSystem, FsError, New
from xnfs import FramePool, MemoryDevice, Xn, XnError
from xnfs.disk.fsck import check_image
from xnfs.disk.layout import Seed
from xnfs.disk.superblock import read_superblock_untrusted
from xnfs.disk.tables import Tables
from xnfs_trials.damage.limits import Hang, limits
from xnfs_trials.damage.subject import ROOT, Subject, clock
from xnfs_trials.damage.survey import MOST_NAMES, Look, survey

REFUSED, REPORTED, REPAIRED, VALID = OUTCOMES = ("refused", "reported", "repaired", "valid")
LONGEST_LINE: Final = 400
_PROBE: Final = b"probe " * 1000
_FILE: Final = 0o100644


class Verdict(NamedTuple):
    """An outcome, or the kind of a defect with its words."""

    outcome: str
    words: str = ""

    @property
    def wrong(self) -> bool:
        """A defect."""
        return self.outcome not in OUTCOMES


class Wrong(Exception):
    """A defect of this kind."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


@dataclass
class Checked:
    """What fsck said: the kernel's, then those of the file systems."""

    findings: list[str]
    left: int = 0
    error: str = ""  # the kernel's fsck could do nothing
    stopped: str = ""  # a file system's could do nothing

    @property
    def clean(self) -> bool:
        """Nothing was found, and nothing stood in the way."""
        return not (self.findings or self.left or self.error or self.stopped)


@dataclass
class Mounted:
    """What a mount showed, and the errors that it answered with."""

    looks: dict[int, Look]
    errors: list[str]


def judge(
    subject: Subject, image: dict[int, bytes], damaged: frozenset[int], **how: bool
) -> Verdict:
    """The verdict on an image; `damaged`: its blocks that are not what they were.

    `sealed`: the checksums are right; `forged`: what the kernel believes without a second source
    lies with a right checksum (the free map, the record of a type), so that what was fine may be
    lost; errors are then asked to be clean, and no more.
    """
    try:
        with limits():
            return Verdict(_Judge(subject, image, damaged, **how).run())
    except Wrong as wrong:
        return Verdict(wrong.kind, str(wrong))
    except Hang:
        return Verdict("hang", "the time was up")
    except MemoryError as error:
        return Verdict("memory", _where(error))
    except Exception as error:
        return Verdict("traceback", f"{type(error).__name__}: {error} {_where(error)}")


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))


class _Judge:
    def __init__(
        self,
        subject: Subject,
        image: dict[int, bytes],
        damaged: frozenset[int],
        *,
        sealed: bool = False,
        forged: bool = False,
    ) -> None:
        self._subject = subject
        self._image = image
        self._sealed = sealed
        self._forged = forged
        self._fine = subject.fine(damaged)

    def _disk(self) -> MemoryDevice:
        return MemoryDevice(self._subject.geometry.blocks, dict(self._image))

    def run(self) -> str:
        """The outcome. Raises Wrong."""
        looked = self._look()
        used = self._disk()
        seen = self._mount(used)
        if not self._sealed:
            self._honest(seen)
        disk = self._disk()
        outcome = self._mend(disk, looked)
        if outcome == REFUSED:
            return outcome
        if outcome == VALID and seen.errors and not self._forged:
            raise Wrong("unsound", f"fsck finds nothing, mounted: {seen.errors[0]}")
        if used._contents != self._image and not self._forged:
            after = self._mend(used, None)
            if after == REFUSED:
                raise Wrong("lost", "after a mount as it was the image can't be opened")
        return outcome

    # -- fsck

    def _look(self) -> Checked:
        """fsck -n"""
        disk = self._disk()
        checked = fsck(disk, self._subject.frames, repair=False)
        if disk._contents != self._image:
            raise Wrong("wrote", "fsck -n has written")
        return checked

    def _mend(self, disk: MemoryDevice, looked: Checked | None) -> str:
        """fsck -y, and what follows; the outcome."""
        mended = fsck(disk, self._subject.frames, repair=True)
        if mended.error:
            return REFUSED
        if looked is not None and bool(looked.findings) != bool(mended.findings):
            raise Wrong("again", f"fsck -n finds {looked.findings}, fsck -y {mended.findings}")
        if mended.left or mended.stopped:
            if not self._forged:
                self._kept(disk)
            return REPORTED
        self._nothing(disk, "again", f"after {mended.findings[:3]}: ")
        seen = self._mount(disk)
        if self._forged:
            return REPORTED if seen.errors else REPAIRED if mended.findings else VALID
        if seen.errors:
            raise Wrong("unsound", f"after fsck ({mended.findings[:2]}): {seen.errors[0]}")
        for ino in self._fine:
            if ino not in seen.looks:
                raise Wrong("lost", f"inode {ino} is gone: {mended.findings[:2]}")
            self._same(ino, seen.looks[ino], "lost")
        if looked is not None and self._sealed:
            self._nothing(disk, "unsound", "after a mount: ")
        return REPAIRED if mended.findings else VALID

    def _nothing(self, disk: MemoryDevice, kind: str, when: str) -> None:
        copy = MemoryDevice(disk.blocks, dict(disk._contents))
        again = fsck(copy, self._subject.frames, repair=False)
        if not again.clean:
            words = [*again.findings, again.error, again.stopped]
            raise Wrong(kind, f"{when}fsck finds {next(filter(None, words))}")

    # -- mounting

    def _mount(self, disk: MemoryDevice) -> Mounted:
        """Mount every file system, look at everything, write a file, unmount."""
        out = Mounted({}, [])
        try:
            xn = Xn(disk, frames=FramePool(self._subject.frames), clock=clock)
        except XnError as error:
            out.errors.append(one_line(error))
            return out
        self._all(xn, out)
        try:
            xn.close()
        except XnError as error:
            out.errors.append(one_line(error))
        return out

    def _all(self, xn: Xn, out: Mounted) -> None:
        try:
            roots = xn.roots()
        except XnError as error:
            out.errors.append(one_line(error))
            return
        for root in roots:
            try:
                untouched = root.block in self._subject.witness
                known = of_type(xn, root.type)
                if known is None:
                    out.errors.append(f"'{root.name}' is of no known type")
                    continue
                fs = known.mount(xn, xn.admin, root.name, readonly=untouched)
                seen = survey(fs)
                out.looks |= seen.looks
                out.errors += seen.errors
                if seen.names > MOST_NAMES:
                    raise Wrong("hang", "there is no end of names")
                if not (untouched or xn.readonly):
                    _use(fs)
                fs.close()
            except (XnError, FsError) as error:
                out.errors.append(one_line(error))

    def _honest(self, seen: Mounted) -> None:
        """A wrong checksum was left: nothing may be shown but what was there."""
        for ino, look in seen.looks.items():
            if ino not in self._subject.looks:
                raise Wrong("silent", f"inode {ino} was not there")
            self._same(ino, look, "silent")

    def _same(self, ino: int, look: Look, kind: str) -> None:
        want = self._subject.looks[ino]
        for field, a, b in zip(Look._fields, look, want, strict=True):
            if a != b:
                raise Wrong(kind, f"inode {ino}: {field} is {str(a)[:60]}, was {str(b)[:60]}")

    def _kept(self, disk: MemoryDevice) -> None:
        """fsck could not mend everything: the blocks of the witness are as they were, and not
        free."""
        tables = None
        for block in sorted(self._subject.witness):
            if not self._fine & self._subject.witness:
                return  # the way to it is damaged
            if disk._contents.get(block) != self._subject.contents.get(block):
                raise Wrong("lost", f"block {block} of the witness has changed")
            if tables is None:
                sb = read_superblock_untrusted(disk)
                tables = Tables.load(disk, sb.geometry, Seed(sb.uuid))
            if not tables.total(block):
                raise Wrong("lost", f"block {block} of the witness is free")


def _use(fs: FileSystem) -> None:
    """Write a file, make it durable, read it. Raises FsError."""
    names = (b"probe-%d" % number for number in range(100))
    name = next(name for name in names if fs.lookup(fs.root, name) is None)
    ino = fs.create(ROOT, fs.root, name, New(_FILE, 0, 0))
    fs.write(ROOT, ino, 0, _PROBE, kill_suid=False)
    fs.sync(None)
    if fs.read(ino, 0, len(_PROBE) + 1) != _PROBE:
        raise Wrong("silent", "a new file has other bytes than were written")


def one_line(error: Exception) -> str:
    """The error as a command would show it. Raises Wrong."""
    text = str(error.strerror) if isinstance(error, FsError) else str(error)
    if not text or "\n" in text or len(text) > LONGEST_LINE:
        raise Wrong("message", f"{type(error).__name__}: {text[:100]!r}")
    return text


def fsck(disk: MemoryDevice, frames: int, *, repair: bool) -> Checked:
    """What fsck.xnfs does: the kernel's structures, then, if those are sound, each file system."""
    out = Checked([])

    def said(finding: object) -> None:
        out.findings.append(str(finding))

    try:
        result = check_image(disk, repair=repair, report=said, rebuild=rebuild)
    except XnError as error:
        out.error = one_line(error)
        return out
    out.left = result.unrepaired
    if not (result.clean or (repair and not result.incomplete)):
        out.left += result.incomplete
        return out
    try:
        xn = Xn(disk, frames=FramePool(frames), clock=clock, readonly=not repair)
    except XnError as error:
        out.stopped = one_line(error)
        return out
    try:
        for root in xn.roots():
            known = of_type(xn, root.type)
            if known is not None and known.check is not None:
                done = known.check(xn, xn.admin, root.name, repair=repair, report=said)
                out.left += done.unrepaired * repair
        xn.close()
    except XnError as error:
        out.stopped = one_line(error)
    return out
