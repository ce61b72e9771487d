"""The types: verified, and each rule of their acls once kept and once broken, by system calls that
no libFS would make."""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping

import pytest

from libfs.common.naming import name_hash
from libfs.ffs import format as f
from libfs.ffs import types as t
from libfs.ffs.inode import decode_untrusted
from libfs.posix.interface import FsError, Ino, New, User
from tests.ffs.support import ALICE, BOB, FILE, ROOT, Disk, write
from xnfs import AclRefused, Caller, Refused

EPERM, EACCES, EEXIST = errno.EPERM, errno.EACCES, errno.EEXIST
EINVAL, EUCLEAN = errno.EINVAL, errno.EUCLEAN
Diff = list[tuple[int, bytes]]


class Raw:
    """System calls on a mounted image, as some user."""

    def __init__(self, blocks: int = 8192) -> None:
        self.disk = Disk(blocks)
        self.fs = self.disk.fs
        self.xn = self.disk.xn
        self.cap = self.fs.volume.cap

    def change(
        self,
        user: User,
        edits: Mapping[int, Diff],
        *,
        alloc: list[tuple[int, int, int]] | None = None,
        inits: Mapping[int, Diff] | None = None,
        witnesses: Mapping[int, int] | None = None,
    ) -> int:
        """The errno of the acl; 0 if it agreed."""
        who = Caller(self.cap, user.uid, user.gid, user.groups)
        try:
            self.xn.change(
                who,
                list(edits.items()),
                alloc=alloc or [],
                inits=inits or {},
                witnesses=witnesses or {},
            )
        except AclRefused as refused:
            return refused.errno
        return 0

    def header(self, ino: Ino, **fields: int) -> dict[int, Diff]:
        """The edit that gives an inode these fields, all others as they are."""
        v = self.fs.volume.vnode(ino)
        self.fs.volume.flush(v)
        old = {name: getattr(v, name) for name in fields}
        for name, value in fields.items():
            setattr(v, name, value)
        packed = v.pack()
        for name, value in old.items():
            setattr(v, name, value)
        return {ino: [(f.HEADER_AT, packed)]}

    def file(self, user: User, mode: int = 0o644) -> Ino:
        """A file of that user."""
        new = New(stat.S_IFREG | mode, user.uid, user.gid)
        ino = self.fs.create(ROOT, self.fs.root, b"f%o-%d" % (mode, user.uid), new)
        write(self.fs, ino, 0, b"x" * 10_000)
        return ino


@pytest.fixture
def raw() -> Raw:
    """A fresh image."""
    return Raw()


def test_types_are_installed(raw: Raw) -> None:
    assert {name for _number, spec in raw.xn.types() for name in [spec.name]} >= {
        spec.name for spec in t.TYPES
    }


def test_types_super_belongs_to_root(raw: Raw) -> None:
    block = raw.fs.volume.super
    flags = raw.xn.read(Caller(raw.cap), block, 24, 4)
    assert raw.change(ALICE, {block: [(24, flags)]}) == EPERM
    assert raw.change(ROOT, {block: [(24, flags)]}) == 0


@pytest.mark.parametrize(
    ("user", "fields", "answer"),
    [
        (ALICE, {"mode": stat.S_IFREG | 0o600}, 0),
        (BOB, {"mode": stat.S_IFREG | 0o666}, EPERM),
        (ROOT, {"mode": stat.S_IFREG | 0o666}, 0),
        (ALICE, {"mode": stat.S_IFREG | 0o2755}, 0),  # set-id bits of a group of hers
        (ALICE, {"mode": stat.S_IFLNK | 0o644}, EPERM),  # never another kind
        (ALICE, {"uid": 1001}, EPERM),  # giving away
        (ROOT, {"uid": 1001}, 0),
        (ALICE, {"gid": 44}, 0),  # to a group of hers
        (ALICE, {"gid": 45}, EPERM),
        (BOB, {"gid": 1001}, EPERM),
        (ALICE, {"mtime": 5}, 0),  # times at will
        (BOB, {"mtime": 5}, EPERM),
        (BOB, {"atime": 5}, 0),  # reading moves it; nobody is harmed
        (ALICE, {"ctime": 5}, EPERM),
        (ROOT, {"ctime": 5}, 0),
        (ALICE, {"crtime": 5}, EPERM),
        (ALICE, {"generation": 5}, EPERM),
        (BOB, {"size": 9_000}, 0),  # a writer, whose right was checked when the file was opened
        (BOB, {"nlink": 2}, 0),
        (BOB, {"nlink": 9}, EPERM),
    ],
)
def test_types_header_of_another(raw: Raw, user: User, fields: dict[str, int], answer: int) -> None:
    """Rule A3 and A4, on a file of Alice."""
    ino = raw.file(ALICE)
    assert raw.change(user, raw.header(ino, **fields)) == answer


def test_types_writer_clears_set_id_only(raw: Raw) -> None:
    ino = raw.file(ALICE, 0o6755)
    now = raw.fs.now()
    plain = stat.S_IFREG | 0o755
    assert raw.change(BOB, raw.header(ino, mode=plain | 0o1000, mtime=now)) == EPERM
    assert raw.change(BOB, raw.header(ino, mode=plain, mtime=now, ctime=now)) == 0


def test_types_group_set_id_needs_the_group(raw: Raw) -> None:
    ino = raw.file(User(1000, 55))
    assert raw.change(ALICE, raw.header(ino, mode=stat.S_IFREG | 0o2755)) == EPERM


def test_types_access_list_is_the_owners(raw: Raw) -> None:
    ino = raw.file(ALICE, 0o666)
    assert raw.change(BOB, {ino: [(f.ACL_AT, f.ACL_COUNT.pack(0) + bytes(8))]}) == 0
    grant = f.ACL_COUNT.pack(1) + f.ACL_ENTRY.pack(2, 7, BOB.uid)
    assert raw.change(BOB, {ino: [(f.ACL_AT, grant)]}) == EPERM
    assert raw.change(ALICE, {ino: [(f.ACL_AT, grant)]}) == 0


@pytest.mark.parametrize(("mode", "answer"), [(0o644, EACCES), (0o666, 0)])
def test_types_attributes_need_write(raw: Raw, mode: int, answer: int) -> None:
    ino = raw.file(ALICE, mode)
    assert raw.change(BOB, {ino: [(f.RECORDS_AT, b"\1\1\1\0av")]}) == answer


def test_types_symlink_target_stays(raw: Raw) -> None:
    new = New(stat.S_IFLNK | 0o777, BOB.uid, BOB.gid, target=b"here")
    ino = raw.fs.create(ROOT, raw.fs.root, b"link", new)
    assert raw.change(BOB, {ino: [(f.INLINE_AT, b"evil")]}) == EPERM
    assert raw.change(BOB, raw.header(ino, size=3)) == EPERM


@pytest.mark.parametrize("keep", [False, True])
def test_types_symlink_keeps_its_blocks_while_it_lives(raw: Raw, *, keep: bool) -> None:
    """A long target lies in blocks: they go with the inode, in one change, and never before."""
    new = New(stat.S_IFDIR | 0o777, ALICE.uid, ALICE.gid)
    home = raw.fs.create(ROOT, raw.fs.root, b"home", new)
    link = New(stat.S_IFLNK | 0o777, ALICE.uid, ALICE.gid, target=b"t" * 3000)
    ino = raw.fs.create(ALICE, home, b"long", link)
    who = Caller(raw.cap, BOB.uid, BOB.gid)
    slot = bytes(raw.xn.read(who, ino, f.INODE_SLOTS_AT, 16))
    block = int.from_bytes(slot[8:], "little") & (1 << 56) - 1
    number = raw.xn.type_number(t.DATA)
    assert number is not None
    cut = [(ino, [(f.INODE_SLOTS_AT, bytes(16))])]
    for caller in (who, Caller(raw.cap, ALICE.uid, ALICE.gid)):
        with pytest.raises(AclRefused):
            raw.xn.change(caller, cut, free=[(number, block, 1)])
    raw.fs.unlink(BOB, home, b"long", keep=keep)
    if not keep:
        raw.fs.sync(None)
        assert not raw.xn.cached(ino)


def test_types_no_raw_writes(raw: Raw) -> None:
    ino = raw.file(ALICE)
    with pytest.raises(Refused):
        raw.xn.write_raw(Caller(raw.cap), ino, f.INLINE_AT, b"x")


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"size": 4096}, (EACCES, EACCES, EACCES, 0)),
        ({"blocks": 7}, (EACCES, EACCES, 0, 0)),
        ({"nlink": 3}, (EACCES, EACCES, EACCES, 0)),
        ({"nlink": 9}, (EACCES, EACCES, EACCES, 0)),
        ({"nlink": 0}, (EACCES, EACCES, EACCES, 0)),
        ({"depth": 1}, (EACCES, EACCES, EACCES, 0)),
        ({"flags": 5}, (EACCES, EACCES, EACCES, 0)),
        ({"entries": 9}, (EACCES, EACCES, EACCES, 0)),
        ({"names": 9}, (EACCES, EACCES, EACCES, 0)),
        ({"heap": 65535}, (EUCLEAN, EUCLEAN, EUCLEAN, EUCLEAN)),
        ({"heap": 0}, (EUCLEAN, EUCLEAN, EUCLEAN, EUCLEAN)),
        ({"parent": 9}, (EACCES, EACCES, 0, 0)),
        ({"mtime": -1}, (EACCES, EACCES, 0, 0)),
        ({"mtime": -1, "entries": 9}, (EACCES, EACCES, EACCES, 0)),
        ({"atime": -1, "ctime": -1}, (0, 0, 0, 0)),
    ],
)
def test_types_header_of_anothers_directory(
    raw: Raw, fields: dict[str, int], errors: tuple[int, ...]
) -> None:
    """What names, and times and blocks, say of a directory is changed by who may change those: for
    the first that is write and search, for the others write."""
    for other, answer in zip((0, 5, 6, 7), errors, strict=True):
        new = New(stat.S_IFDIR | 0o750 | other, ALICE.uid, ALICE.gid)
        ino = raw.fs.create(ROOT, raw.fs.root, b"d%d" % other, new)
        now = raw.fs.now()
        wanted = {name: now if value < 0 else value for name, value in fields.items()}
        assert raw.change(BOB, raw.header(ino, **wanted)) == answer, other


def test_types_what_lies_beside_a_directorys_header(raw: Raw) -> None:
    ino = raw.fs.create(ROOT, raw.fs.root, b"d", New(stat.S_IFDIR | 0o755, ALICE.uid, ALICE.gid))
    for at in (124, 255, 256, 440, 456, 511):
        assert raw.change(BOB, {ino: [(at, b"\1")]}) == EACCES
        assert raw.change(ALICE, {ino: [(at, b"\1")]}) == 0


def test_types_owner_of_a_closed_directory(raw: Raw) -> None:
    """Times, mode, group and attributes are the owner's whatever the mode says."""
    ino = raw.fs.create(ROOT, raw.fs.root, b"d", New(stat.S_IFDIR, ALICE.uid, ALICE.gid))
    assert raw.change(ALICE, raw.header(ino, mtime=5, gid=44, blocks=1)) == 0
    assert raw.change(ALICE, raw.header(ino, entries=5)) == EACCES
    assert raw.change(ALICE, raw.header(ino, mode=stat.S_IFDIR | 0o700)) == 0
    assert raw.change(ALICE, raw.header(ino, entries=5)) == 0


def test_types_anothers_empty_directory_goes_while_it_is_open(raw: Raw) -> None:
    """Write and search on its parent are enough for that, as POSIX wants it."""
    fs = raw.fs
    above = fs.create(ROOT, fs.root, b"above", New(stat.S_IFDIR | 0o755, BOB.uid, BOB.gid))
    ino = fs.create(ROOT, above, b"d", New(stat.S_IFDIR | 0o700, ALICE.uid, ALICE.gid))
    bobs = fs.create(ROOT, fs.root, b"bobs", New(stat.S_IFDIR | 0o777, BOB.uid, BOB.gid))
    carol, dies = User(1002, 1002), raw.header(ino, nlink=0)
    assert raw.change(carol, dies, witnesses={ino: above}) == EACCES
    assert raw.change(carol, dies, witnesses={ino: bobs}) == EACCES  # not its parent
    more = raw.header(ino, nlink=0, entries=1), raw.header(ino, nlink=1)
    for wrong in (*more, raw.header(ino, nlink=0, size=5), raw.header(ino, nlink=0, depth=1)):
        assert raw.change(BOB, wrong, witnesses={ino: above}) == EACCES
    fs.unlink(BOB, above, b"d", keep=True)
    assert fs.getattr(ino).nlink == 0
    fs.forget(ino)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO])
def test_types_times_of_what_is_no_file_need_write(raw: Raw, kind: int) -> None:
    """No data is written to it, so that nobody's data tells its time."""
    target = b"here" if kind == stat.S_IFLNK else b""
    for mode, answer in ((0o755, EACCES), (0o777, 0)):
        new = New(kind | mode, ALICE.uid, ALICE.gid, target=target)
        ino = raw.fs.create(ROOT, raw.fs.root, b"%o" % mode, new)
        assert raw.change(BOB, raw.header(ino, mtime=raw.fs.now())) == answer


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        ({"size": 2**44}, 0),
        ({"size": 2**44 + 1}, EUCLEAN),
        ({"size": 2**64 - 1}, EUCLEAN),
        ({"depth": 3}, 0),
        ({"depth": 4}, EUCLEAN),
        ({"blocks": 2**56 - 1}, 0),
        ({"blocks": 2**56}, EUCLEAN),
        ({"entries": 2**56}, EUCLEAN),
        ({"flags": f.I_INLINE, "size": 2560}, 0),
        ({"flags": f.I_INLINE, "size": 2561}, EUCLEAN),
    ],
)
@pytest.mark.parametrize("user", [ROOT, ALICE, BOB], ids=["root", "owner", "stranger"])
def test_types_header_that_could_not_be_read(
    raw: Raw, user: User, fields: dict[str, int], answer: int
) -> None:
    """One such inode would make the file system read-only for everybody."""
    ino = raw.file(ALICE)
    assert raw.change(user, raw.header(ino, **fields)) == answer
    assert decode_untrusted(ino, raw.xn.read(Caller(raw.cap), ino, 0, f.BLOCK)).ino == ino


@pytest.mark.parametrize(
    "fields",
    [{"flags": 0}, {"flags": 3}, {"size": 2**44 + 1}, {"depth": 4}, {"entries": 2**56}],
)
def test_types_header_of_a_directory_that_could_not_be_read(
    raw: Raw, fields: dict[str, int]
) -> None:
    ino = raw.fs.create(ROOT, raw.fs.root, b"d", New(stat.S_IFDIR | 0o755, ALICE.uid, ALICE.gid))
    for user in (ROOT, ALICE):
        assert raw.change(user, raw.header(ino, **fields)) == EUCLEAN


def test_types_inode_is_born_readable(raw: Raw) -> None:
    number, block = raw.xn.type_number(t.INODE), raw.xn.find_free(raw.fs.root, 1)[0]
    assert number is not None
    made = raw.fs._names.inode(block, New(FILE.mode, ALICE.uid, ALICE.gid), raw.fs.root)
    for size, answer in ((2561, EUCLEAN), (2**44 + 1, EUCLEAN), (2560, 0)):
        made.size = size
        init = [(f.HEADER_AT, made.pack())]
        who = Caller(raw.cap, ALICE.uid, ALICE.gid)
        got = 0
        try:
            raw.xn.alloc_held(who, raw.fs.volume.super, (number, block, 1), init=init)
        except AclRefused as refused:
            got = refused.errno
        assert got == answer


class Directory(Raw):
    """A directory of Alice, inline or hashed, and edits that put a name into it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        new = New(stat.S_IFDIR | 0o755, ALICE.uid, ALICE.gid)
        self.ino = self.fs.create(ROOT, self.fs.root, b"d", new)
        for i in range(count):
            self.fs.create(ALICE, self.ino, b"n%d" % i, New(stat.S_IFREG | 0o644, 1000, 1000))
        self.v = self.fs.volume.vnode(self.ino)
        self.hashed = bool(self.v.flags & f.I_HASHED)

    def put(self, user: User, name: bytes, inode: User = ALICE, **over: int) -> int:
        """Create `name` without asking any libFS; the acl's answer. `over`: what to do wrong."""
        h = name_hash(self.v.hash_key, name)
        nb = (
            self.fs._dirs.leaf(self.v, over.get("hash", h))
            if self.hashed
            else self.fs._dirs.inline(self.v)
        )
        assert nb is not None
        area, slot = nb.area, nb.free[-1]
        end = nb.end + over.get("gap", 0)
        block = self.xn.find_free(self.ino, 1)[0]
        witnesses = {nb.block: over.get("witness", self.ino)}
        if shown := over.get("shown", self.ino):
            witnesses[block] = shown
        length = over.get("length", len(name))
        diff: Diff = [
            (area.pointers + 8 * slot, f.POINTER.pack(f.pointer(f.P_INODE, block))),
            (area.records + 4 * slot, f.RECORD.pack(end, length, 8)),
            (area.tags + 4 * slot, f.TAG.pack(h + over.get("tag", 0) & f.TAG_MASK)),
            (end, name),
        ]
        ends = f.ENDS.pack(len(nb.names) + 1, end + len(name))
        diff.append((area.ends, ends))
        new = self.fs._names.inode(block, New(FILE.mode, inode.uid, inode.gid), self.ino)
        number = self.xn.type_number(t.INODE)
        assert number is not None
        self.fs.volume.decoded.pop(nb.block)  # it doesn't know of what follows
        return self.change(
            user,
            {nb.block: diff},
            alloc=[(number, block, 1)],
            inits={block: [(f.HEADER_AT, new.pack())]},
            witnesses=witnesses,
        )


@pytest.fixture(params=[3, 100], ids=["inline", "hashed"])
def directory(request: pytest.FixtureRequest) -> Directory:
    """A directory of either form."""
    return Directory(request.param)


def test_types_name_added(directory: Directory) -> None:
    assert directory.put(ALICE, b"good name") == 0


@pytest.mark.parametrize(
    ("name", "over", "answer"),
    [
        (b"a/b", {}, EINVAL),
        (b"a\0b", {}, EINVAL),
        (b"n1", {}, EEXIST),
        (b"abc", {"length": 0}, EUCLEAN),
        (b"abc", {"length": 2}, EUCLEAN),
        (b"abc", {"tag": 1}, EUCLEAN),
        (b"abc", {"gap": 1}, EEXIST),  # neither appended nor in canonical form
    ],
)
def test_types_bad_names(
    directory: Directory, name: bytes, over: dict[str, int], answer: int
) -> None:
    """Rule A1, for root as for everybody."""
    assert directory.put(ROOT, name, ROOT, **over) in (answer, EUCLEAN, EINVAL)
    assert directory.fs.lookup(directory.ino, b"n2") is not None


def test_types_names_need_write_and_search(directory: Directory) -> None:
    """Rule A2."""
    assert directory.put(BOB, b"bob", BOB) == EACCES
    directory.fs.volume.flush(directory.v)
    assert directory.change(ALICE, directory.header(directory.ino, mode=0o40777)) == 0
    assert directory.put(BOB, b"bob", BOB) == 0


def test_types_new_inode_belongs_to_its_maker(directory: Directory) -> None:
    """Rule A5."""
    assert directory.put(ALICE, b"not hers", BOB) == EPERM
    assert directory.put(ALICE, b"not her group", User(1000, 1001)) == EPERM
    assert directory.put(ALICE, b"another of hers", User(1000, 44)) == 0
    assert directory.put(ROOT, b"root's gift", BOB) == 0


def test_types_directory_is_born_without_names(raw: Raw) -> None:
    """Rule A1, for root as for everybody: names that nobody has checked could be anything."""
    number, top = raw.fs.volume.type[f.P_DIR], raw.fs.root
    kind = stat.S_IFDIR | 0o755
    one = (f.INLINE_NAMES.records, f.RECORD.pack(f.INLINE_NAMES.heap, 1, 8))
    wrong: list[tuple[dict[str, int], Diff]] = [
        ({"names": 1}, []),
        ({"heap": 1537}, []),
        ({"heap": 0}, []),
        ({}, [one]),
        ({}, [(f.INLINE_NAMES.heap, b"/")]),
        ({"flags": f.I_HASHED}, [(f.INLINE_NAMES.tags, b"tag")]),
        ({}, []),
    ]
    for user in (ROOT, ALICE):
        for fields, diff in wrong:
            block = raw.xn.find_free(top, 1)[0]
            made = raw.fs._names.inode(block, New(kind, user.uid, user.gid), top)
            for name, value in fields.items():
                setattr(made, name, value)
            init = [(f.HEADER_AT, made.pack()), *diff]
            answer = EUCLEAN if fields or diff else 0
            assert born(raw, user, number, block, init) == answer, fields or diff


def born(raw: Raw, user: User, number: int, block: int, init: Diff, witness: int = 0) -> int:
    """A held block is born, with a witness (the super block); the acl's answer."""
    who = Caller(raw.cap, user.uid, user.gid, user.groups)
    try:
        raw.xn.alloc_held(who, witness or raw.fs.volume.super, (number, block, 1), init=init)
    except AclRefused as refused:
        return refused.errno
    return 0


def test_types_group_comes_from_a_directory_only(directory: Directory) -> None:
    """Rule A5: the witness is what the caller likes, also what looks like one by chance."""
    foreign = User(ALICE.uid, 77)
    top, parent = directory.fs.root, directory.ino
    shared = New(stat.S_IFDIR | 0o2777, 0, 77)
    given = directory.fs.create(ROOT, top, b"shared", shared)
    plain = directory.fs.create(ROOT, top, b"plain", New(stat.S_IFDIR | 0o777, 0, 77))
    file = directory.fs.create(ROOT, top, b"file", New(stat.S_IFREG | 0o2777, 0, 77))
    assert directory.put(ALICE, b"of the group", foreign, shown=given) == 0
    for witness in (plain, file, parent, 0):
        assert directory.put(ALICE, b"x%d" % witness, foreign, shown=witness) == EPERM
    block = directory.fs.volume.super  # begins with "FF": a directory with the bit, by chance
    assert directory.put(ALICE, b"of no flags", User(ALICE.uid, 0), shown=block) == EPERM


def test_types_block_that_looks_like_a_directory_gives_no_group() -> None:
    """Rule A5: Alice has a directory in block 0x14400, whose leaves begin with that number: with
    the mode and the flags of a directory that gives its group, which is the lowest hash then."""
    raw = Raw(0x14800)
    ino, fs = 0x14400, raw.fs
    dir_type, leaf_type, inode_type = (fs.volume.type[k] for k in (f.P_DIR, f.P_LEAF, f.P_INODE))
    made = fs._names.inode(ino, New(stat.S_IFDIR | 0o700, ALICE.uid, ALICE.gid), fs.root)
    assert born(raw, ALICE, dir_type, ino, [(f.HEADER_AT, made.pack())]) == 0
    leaf = raw.xn.find_free(ino, 1)[0]
    head = f.LEAF_HEAD.pack(ino, 77, f.HASH_MAX, 0, f.LEAF_NAMES.heap)
    times = (44, b"\1" * 20)
    assert born(raw, ALICE, leaf_type, leaf, [(f.LEAF_AT, head), times], ino) == EUCLEAN
    assert born(raw, ALICE, leaf_type, leaf, [(f.LEAF_AT, head)], ino) == 0
    assert raw.change(ALICE, {leaf: [times]}, witnesses={leaf: ino}) == EUCLEAN
    for kind, head in (
        (f.P_INDEX, f.INDEX_HEAD.pack(ino, 77, f.INDEX_FIRST_LEVEL)),
        (f.P_XATTR, f.POINTER.pack(ino)),
    ):
        block = raw.xn.find_free(leaf, 1)[0]
        init = [(f.LEAF_AT, head), (56, b"\1")]
        assert born(raw, ALICE, fs.volume.type[kind], block, init, ino) == EUCLEAN
        assert born(raw, ALICE, fs.volume.type[kind], block, init[:1], ino) == 0
    block = raw.xn.find_free(leaf, 1)[0]
    new = fs._names.inode(block, New(FILE.mode, ALICE.uid, 77), ino)
    init = [(f.HEADER_AT, new.pack())]
    assert born(raw, ALICE, inode_type, block, init, leaf) == EPERM


def test_types_heap_is_checked_where_it_changes(directory: Directory) -> None:
    """An old name may become another only in a block that is canonical as a whole."""
    nb = directory.fs._dirs.holder(directory.v, b"n1")
    offset, _length, _type = nb.records[nb.names[b"n1"][0]]
    edit = {nb.block: [(offset, b"/")]}
    shown = {nb.block: directory.ino}
    assert directory.change(ROOT, edit, witnesses=shown) in (EINVAL, EUCLEAN, EEXIST)


def test_types_leaf_wants_its_own_directory() -> None:
    directory = Directory(100)
    assert directory.put(ROOT, b"x", ROOT, witness=directory.fs.root) == EINVAL


def test_types_name_in_the_wrong_leaf() -> None:
    directory = Directory(400)
    leaves = {}
    for i in range(400):
        leaf = directory.fs._dirs.leaf(directory.v, name_hash(directory.v.hash_key, b"n%d" % i))
        assert leaf is not None
        leaves[leaf.block] = leaf
    wrong = next(
        leaf
        for leaf in leaves.values()
        if not leaf.lo <= name_hash(directory.v.hash_key, b"wrong") <= leaf.hi
    )
    assert directory.put(ROOT, b"wrong", ROOT, hash=wrong.lo) == EINVAL


def test_types_access(raw: Raw) -> None:
    """op 0: what `access` asks. The order is owner, list, group, other."""
    fs = raw.fs
    ino = raw.file(ALICE, 0o640)

    def may(user: User, mask: int) -> bool:
        try:
            raw.xn.access(Caller(raw.cap, user.uid, user.gid, user.groups), ino, mask)
        except AclRefused as refused:
            return refused.errno != EACCES
        return True

    assert may(ALICE, 6)
    assert not may(ALICE, 1)
    assert may(User(5, 1000), 4)
    assert may(User(5, 6, (7, 1000)), 4)
    assert not may(User(5, 1000), 2)
    assert not may(BOB, 4)
    assert may(ROOT, 6)
    assert not may(ROOT, 1)  # no x bit at all
    entries = [(1, 6, 2**32 - 1), (2, 6, BOB.uid), (4, 4, 2**32 - 1), (8, 4, 77)]
    entries += [(16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]
    value = b"\2\0\0\0" + b"".join(f.ACL_ENTRY.pack(*entry) for entry in entries)
    fs.setxattr(ALICE, ino, b"system.posix_acl_access", value, 0)
    assert may(BOB, 4)
    assert not may(BOB, 2)  # the mask takes it
    assert may(User(9, 77), 4)
    assert not may(User(9, 78), 4)


@pytest.mark.parametrize("user", [ALICE, BOB])
def test_types_only_ffs_lets_go_of_an_open_file_without_a_name(raw: Raw, user: User) -> None:
    """A9: the capability alone frees no file under whoever has it open."""
    fs, xn, ino = raw.fs, raw.xn, raw.file(ALICE)
    fs.sync(None)
    free = xn.free_blocks()
    fs.unlink(ROOT, fs.root, b"f644-1000", keep=True)
    who = Caller(raw.cap, user.uid, user.gid, user.groups)
    (pointer,) = (slot for slot in f.SLOT.iter_unpack(xn.read(who, ino, 256, 192)) if slot[2])
    number = xn.type_number("ffs.data")
    assert number is not None
    data = [(number, pointer[2] & (1 << 56) - 1, pointer[1])]
    for claims in ([], data):
        with pytest.raises(AclRefused) as refused:
            xn.drop(who, ino, free=claims)
        assert refused.value.errno == EPERM
    assert fs.read(ino, 0, 20_000) == b"x" * 10_000
    fs.forget(ino)
    fs.sync(None)
    assert xn.free_blocks() == free + 1 + 3


def test_types_an_owner_spoils_his_own_file_and_nobody_elses(raw: Raw) -> None:
    """A9: bytes that the acl lets the owner write and FFS can't read. Only that file is lost."""
    fs, ino, other = raw.fs, raw.file(ALICE), raw.file(BOB)
    fs.sync(None)
    assert raw.change(ALICE, {ino: [(3584, b"\x01\xff\xff\xff")]}) == 0
    fs = raw.disk.remount()
    spoilt = fs.lookup(fs.root, b"f644-1000")
    assert spoilt == ino
    with pytest.raises(FsError) as error:
        fs.listxattr(ino)
    assert error.value.errno == EUCLEAN
    assert not fs.readonly
    assert fs.lookup(fs.root, b"f644-1001") == other
    write(fs, other, 0, b"still mine")
    fs.sync(None)
