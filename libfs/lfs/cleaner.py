"""The cleaner: live blocks of segments that are mostly dead go to the end of the log, and the
segments become free.

Whether a block is live is asked of whoever would name it, never of the usage: an inode map entry, a
map, a directory. What is live counts as changed from then on, so that the next flush writes it
anew. When that flush is durable, roll-forward finds the new places from either checkpoint, so the
segment is freed at once: unless a checkpoint itself names what lies there (nodes of the inode map,
snapshots) or recovery would read it on its way (what was written since the older checkpoint). Then
it waits until both regions are newer. What the usage of the segments was at the end of that flush
is durable with it (`rollforward`).

A turn takes as many segments as there is room to move, and no fewer than it takes to win: what a
flush and a checkpoint would write is known before each of them. A turn that wins nothing is
followed by one of twice the size: what a turn has to write besides, nodes of maps and of the inode
map, does not double.

Greedy takes the segments with the least live; cost-benefit (Rosenblum and Ousterhout 1992, section
3.5) prefers old ones, whose free space will stay: (1 - u) * age / (1 + u).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from libfs.lfs import format as f
from libfs.lfs.checkpoint import SEGMENTS, make_durable
from libfs.lfs.flushing import flush, flush_size
from libfs.lfs.inode import Vnode, records_untrusted
from libfs.lfs.segments import Slot
from libfs.lfs.snapshots import holds, leads_to
from libfs.posix.interface import FsError
from xnfs import CorruptionError

if TYPE_CHECKING:
    from libfs.lfs.volume import Volume

#: What to clean first; the first is the default.
POLICIES: Final = ("cost-benefit", "greedy")
#: Live blocks that one turn moves; and one beside other requests.
MOVE: Final = 512
STEP: Final = 64
#: Room that cleaning leaves, blocks: a checkpoint's.
MARGIN: Final = 4
#: With less room than this part of all, or than so many segments, it cleans before there is need.
LOW: Final = 0.1
LOW_SEGMENTS: Final = 32
#: Then only segments that are not fuller: to clean too early is to clean too full.
WORTH: Final = 0.75
#: Segments that are cleaned beyond what is wanted at once.
AHEAD: Final = 4
TURNS: Final = 64
#: Turns in which nothing is won, each twice as large as the one before, until it is given up.
PATIENCE: Final = 6


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What a segment without a live block waits for."""

    flush: int  # that this one is durable, which wrote elsewhere what was live
    checkpoint: int  # and that both regions are newer than this one; -1: they need not be


class Cleaner:
    """Of one mount. `policy`: "greedy" or "cost-benefit"."""

    def __init__(self, vol: Volume, policy: str = POLICIES[0]) -> None:
        self._vol = vol
        self.policy = policy
        self.clean: dict[int, Cleaned] = {}
        self.pinned: set[int] = set()  # segments with blocks of snapshots
        self.moved = 0  # blocks, for whoever wants to know the cost
        self.cleaned = 0  # segments
        self._busy = False
        self._hopeless = 0  # until so many bytes have died: nothing can be won
        self._stepped = 0  # serial number of the segment at the last step

    # -- which

    def candidates(self, policy: str, fullest: float = 1.0) -> list[int]:
        """Segments worth cleaning, best first; less of them is live than this part."""
        vol = self._vol
        now = vol.now()
        taken = self.clean.keys() | self.pinned
        scored = []
        for segment, usage in vol.segments.usage.items():
            u = usage.live / (usage.blocks * f.BLOCK)
            if segment == vol.log.segment or segment in taken or u >= fullest:
                continue
            age = max(now - usage.youngest, 1)
            score = 1 - u if policy == "greedy" else (1 - u) * age / (1 + u)
            scored.append((score, segment))
        return [segment for _score, segment in sorted(scored, reverse=True)]

    # -- cleaning

    def clean_some(
        self, blocks: int, policy: str | None = None, most: int = MOVE, fullest: float = 1.0
    ) -> int:
        """Clean segments (`candidates`) until so many of their blocks are dead, or `most` are
        moved, or there is no room to move more; how many are dead. Nothing is free yet."""
        vol = self._vol
        won, moving, done = 0, 0, dict[int, int]()
        room = vol.room(4 * most) - MARGIN
        waiting = flush_size(vol, checkpoint=True)
        for segment in self.candidates(policy or self.policy, fullest):
            if won >= blocks or moving >= most:
                break
            usage = vol.segments.usage[segment]
            # Its live bytes are the least it costs: known without a look at the summary.
            if waiting + usage.live // f.BLOCK > room:
                continue
            if waiting + self._cost(segment) > room:
                continue
            if self._pinned(segment):
                continue
            done[segment] = vol.checkpoint.number if self._is_named(segment) else -1
            live = self._scan(segment)
            waiting = flush_size(vol, checkpoint=True)
            won += usage.blocks - 1 - live
            moving += live
        if done:
            flush(vol, cleaning=True)
        for segment, number in done.items():
            self.clean[segment] = Cleaned(vol.log.flush, number)
        self.moved += moving
        self.cleaned += len(done)
        return won

    def _is_named(self, segment: int) -> bool:
        """Whether recovery might look for something here, though nothing is live: a checkpoint
        names it, or it is on the way from one to the end of the log."""
        head, slots = self._vol.segments.slots_untrusted(segment)
        return head.serial >= self._vol.checkpoint.oldest or any(
            kind == f.P_SNAPSHOT or (f.P_MAP1 <= kind <= f.P_MAP3 and not ino)
            for _index, kind, _count, ino, _at, _flush in slots
        )

    def _cost(self, segment: int) -> int:
        """Blocks that moving what is live may make a flush write: it, and maps of what has one."""
        usage = self._vol.segments.usage[segment]
        if not usage.live:
            return 0
        slots = self._vol.segments.slots_untrusted(segment)[1]
        blocks = sum(slot[2] for slot in slots)
        mapped = sum(slot[2] for slot in slots if slot[1] in (f.P_DATA, f.P_NAMES))
        return -(-usage.live * (blocks + mapped) // (f.BLOCK * max(blocks, 1)))

    def _pinned(self, segment: int) -> bool:
        """Whether a snapshot has a block of the segment: then none of them is moved, for nothing
        could be won."""
        vol = self._vol
        snapshots = vol.snapshots.all
        if segment in self.pinned:
            return True
        if not snapshots:
            return False
        newest = max(snapshot.flush for snapshot in snapshots)
        trees = [vol.snapshots.tree(snapshot) for snapshot in snapshots]
        kept = {snapshot.address & f.AT_MASK for snapshot in snapshots}
        summary = vol.segments.summary(segment)
        for index, kind, count, ino, at, flushed in vol.segments.slots_untrusted(segment)[1]:
            for i in range(count):
                block = summary + 1 + index + i
                if block in kept or (
                    flushed <= newest
                    and any(holds(vol, tree, kind, ino, at + i, block) for tree in trees)
                ):
                    self.pinned.add(segment)
                    return True
        return False

    def _scan(self, segment: int) -> int:
        """Count what is live in a segment as changed; how many blocks that is."""
        summary = self._vol.segments.summary(segment)
        live = 0
        for slot in self._vol.segments.slots_untrusted(segment)[1]:
            for i in range(slot[2]):
                live += self._move(slot, summary + 1 + slot[0] + i, slot[4] + i)
        return live

    def _move(self, slot: Slot, block: int, at: int) -> bool:
        """Whether a block is live; then it will be written anew."""
        vol = self._vol
        _index, kind, _count, ino, _at, _flush = slot
        if kind == f.P_INODES:
            return self._move_inodes(block)
        if kind in (f.P_GONE, f.P_SNAPSHOT):
            return False
        if f.P_MAP1 <= kind <= f.P_MAP3:
            tree = vol.imap if ino == 0 else None
            v = None if ino == 0 else self._vnode(ino)
            if v is not None:
                tree = v.tree
            level = kind - f.P_MAP1 + 1
            if tree is None or not _is(tree.address(level, at), block):
                return False
            tree.touch(level, at)
            if v is not None:
                vol.changed(v)
            return True
        v = self._vnode(ino)
        if v is None:
            return False
        if kind == f.P_DATA:
            return self._move_data(v, block, at)
        if kind == f.P_XATTR:
            if not _is(v.xattr_at, block):
                return False
            vol.xattrs(v)
            v.xattrs_dirty = True
        else:
            number = at >> (32 - v.bits)
            if not v.is_dir or v.inline or not _is(v.tree.get(number), block):
                return False
            leaf = vol.leaf(v, number)
            assert leaf is not None  # its address is there
            leaf.dirty = True
        vol.changed(v)
        return True

    def _move_data(self, v: Vnode, block: int, at: int) -> bool:
        address = v.tree.get(at)
        if v.is_dir or not _is(address, block):
            return False
        if at not in v.data:
            v.data[at] = bytearray(self._vol.data(address))
            self._vol.dirty_blocks += 1
        self._vol.changed(v)
        return True

    def _move_inodes(self, block: int) -> bool:
        vol = self._vol
        live = False
        try:
            records = records_untrusted(block, vol.block_untrusted(f.P_INODES, block))
        except CorruptionError:
            if leads_to(vol.imap, block):
                raise
            return False  # a checker gave it up
        for index, (_at, ino) in enumerate(records):
            address = vol.imap.get(ino)
            if _is(address, block) and address >> f.INDEX_SHIFT & f.INDEX_MASK == index:
                vol.changed(vol.vnode(ino))
                live = True
        return live

    def _vnode(self, ino: int) -> Vnode | None:
        try:
            return self._vol.vnode(ino)
        except FsError:
            return None

    # -- freeing

    def release(self, durable: int) -> None:
        """This flush is durable: free the segments that recovery needs no more, whichever region
        it takes. (The log of neither goes on in one of them: it had left them when they were
        cleaned.)"""
        oldest = min(self._vol.checkpoint.durable)
        due = [
            segment
            for segment, each in self.clean.items()
            if each.flush <= durable and each.checkpoint < oldest
        ]
        self._nothing_live(due)
        for segment in due:
            self._free(segment)
            del self.clean[segment]

    def _nothing_live(self, due: list[int]) -> None:
        """All that the summaries of these segments name was moved. If the usage knows of more, one
        of the two is wrong: ask whoever may have a block there. Raises CorruptionError: somebody
        has, so a summary lies; nothing is freed."""
        vol = self._vol
        doubtful = [s for s in due if vol.segments.usage[s].live]
        if not doubtful:
            return
        live = vol.snapshots.live()
        for segment in doubtful:
            if live[segment]:
                summary = vol.segments.usage[segment].summary
                raise CorruptionError(summary, "live bytes after cleaning", live[segment], 0)

    def _free(self, segment: int) -> None:
        vol, segments = self._vol, self._vol.segments
        summary = segments.summary(segment)
        slots = segments.slots_untrusted(segment)[1]
        free = [
            (vol.type[kind], summary + 1 + index, count) for index, kind, count, *_rest in slots
        ]
        rest, left = segments.rest_untrusted(segment)
        if left:
            free.append((vol.type[f.P_UNWRITTEN], rest, left))
        table, at = segments.entry(segment)
        vol.xn.change(
            vol.who,
            [
                (table, [(at, bytes(f.ENTRY_SIZE))]),
                (summary, [(f.REST_AT, bytes(f.BLOCK - f.REST_AT))]),
            ],
            free=[*free, (vol.summary_type, summary, 1)],
        )
        vol.log.anchors[table] = vol.log.flush
        vol.log.anchors.pop(summary, None)
        segments.remove(segment)

    def make_room(self, blocks: int) -> None:
        """There is room for less than so many blocks: clean until there is, and some more; or until
        that wins next to nothing. Then it is not tried again before more has died."""
        vol = self._vol
        if self._busy or vol.segments.died < self._hopeless:
            return
        self._busy = True
        try:
            flush(vol)
            if not self._won(blocks, blocks + AHEAD * vol.segments.size):
                self._hopeless = vol.segments.died + vol.segments.size // 2 * f.BLOCK
        finally:
            self._busy = False

    def _won(self, least: int, goal: int) -> bool:
        """Clean until there is room for `least`; whether that took no great pains."""
        vol, policy, most, patience = self._vol, self.policy, MOVE, PATIENCE
        for _turn in range(TURNS):
            had = vol.room(goal)
            if had >= least + vol.segments.size:
                return True
            self.clean_some(goal - had, policy, most)
            self._collect()
            if vol.room(goal) <= had:
                self.settle()
            if vol.room(goal) <= had:
                policy, most = "greedy", 2 * most  # whatever is won soonest
                patience -= 1
                if not patience:
                    break
        return False

    def step(self) -> None:
        """Beside other requests, once for each segment of the log: clean a little, if there will be
        need. Waits for no device; what is won is free after the next sync. Where nobody asks for
        one, and nothing is ever idle, makes a checkpoint when one was due long ago."""
        vol = self._vol
        if vol.log.serial == self._stepped:
            return
        if vol.log.serial - vol.checkpoint.serial >= 2 * SEGMENTS:
            make_durable(vol, checkpoint=True)
        elif self._is_low():
            self.clean_some(2 * vol.segments.size, most=STEP, fullest=WORTH)
        self._stepped = vol.log.serial

    def idle(self) -> bool:
        """Clean a little ahead of need; whether a checkpoint would free something."""
        vol = self._vol
        if self._is_low():
            self._hopeless = 0
            won = self.clean_some(AHEAD * vol.segments.size, fullest=WORTH)
            if won < vol.segments.size:
                self._hopeless = vol.segments.died + vol.segments.size * f.BLOCK
        return any(each.checkpoint >= 0 for each in self.clean.values())

    def _is_low(self) -> bool:
        """Whether room is short, and cleaning may help."""
        vol = self._vol
        low = min(int(vol.segments.capacity() * LOW), LOW_SEGMENTS * vol.segments.size)
        low += vol.reserve
        return vol.room(low) < low and vol.segments.died >= self._hopeless

    def _collect(self) -> None:
        """Free what was cleaned and waits for no checkpoint."""
        make_durable(self._vol)
        make_durable(self._vol)  # only then is it free

    def settle(self) -> None:
        """Make checkpoints until neither region needs what was cleaned, and free that."""
        if self.clean:
            for _region in range(2):
                make_durable(self._vol, checkpoint=True)
            make_durable(self._vol)


def _is(address: int, block: int) -> bool:
    return address & f.AT_MASK == block
