"""Who may do what, as every kind of user, against what the host's own tmpfs says to the same calls.

The superuser walks all paths first, so that the host kernel knows every name: what it has cached
must not open a door to anybody else. (Without `default_permissions` it would, since cached names
are not looked up again; so the transport mounts with it unless only root can get in.)
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Disk, as_user

pytestmark = pytest.mark.fuse

_OWNER, _MEMBER, _OTHER, _NAMED = 5001, 5002, 5003, 5004
_GROUP, _NAMED_GROUP = 6001, 6002
_USERS = {
    "root": (0, 0, []),
    "owner": (_OWNER, _OWNER, []),
    "member": (_MEMBER, _MEMBER, [_GROUP]),
    "other": (_OTHER, _OTHER, []),
    "named": (_NAMED, _NAMED, []),
    "in-named-group": (_OTHER, _OTHER, [_NAMED_GROUP]),
}

_MODES = (0o000, 0o111, 0o400, 0o444, 0o500, 0o600, 0o640, 0o644, 0o700, 0o711, 0o750, 0o755, 0o777)
_DIRECTORY_MODES = (*_MODES, 0o1777, 0o1770, 0o2775)

# Run as the user, in the directory to be tried: prints the errno of each call, 0 for success.
_SCRIPT = r"""
import ctypes, json, os, sys
uid, gid, groups = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[2])
os.setgroups(groups); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
os.umask(0o022)
results = {}
def attempt(name, call):
    try:
        result = call()
        if isinstance(result, int) and name.startswith("open"):
            os.close(result)
        results[name] = 0
    except OSError as error:
        results[name] = error.errno
def files(top):
    for name in sorted(os.listdir("files")) if top else ():
        p = "files/" + name
        for kind, flags in (("r", os.O_RDONLY), ("w", os.O_WRONLY), ("rw", os.O_RDWR),
                            ("t", os.O_WRONLY | os.O_TRUNC), ("a", os.O_WRONLY | os.O_APPEND),
                            ("n", os.O_RDONLY | os.O_NOATIME), ("c", os.O_RDWR | os.O_CREAT)):
            attempt(f"open-{kind} {p}", lambda: os.open(p, flags))
        for mask in (os.R_OK, os.W_OK, os.X_OK):
            attempt(f"access {mask} {p}", lambda: libc_access(p, mask))
        attempt(f"truncate {p}", lambda: os.truncate(p, 1))
        attempt(f"utime now {p}", lambda: os.utime(p))
        attempt(f"utime {p}", lambda: os.utime(p, (1, 1)))
        attempt(f"chmod {p}", lambda: os.chmod(p, os.stat(p).st_mode & 0o7777))
        attempt(f"chown {p}", lambda: os.chown(p, uid, -1))
        attempt(f"chgrp {p}", lambda: os.chown(p, -1, gid))
        attempt(f"exec {p}", lambda: run(p))
def libc_access(p, mask):
    if libc.access(p.encode(), mask):
        raise OSError(ctypes.get_errno(), p)
def run(p):
    child = os.fork()
    if not child:
        try:
            os.execv(p, [p])
        except OSError as error:
            os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, p)
def directories():
    for name in sorted(os.listdir("dirs")):
        d = "dirs/" + name
        attempt(f"stat in {d}", lambda: os.stat(d + "/mine"))
        attempt(f"stat none in {d}", lambda: os.stat(d + "/none"))
        attempt(f"open in {d}", lambda: os.open(d + "/mine", os.O_RDONLY))
        attempt(f"deep in {d}", lambda: os.stat(d + "/sub/deep"))
        attempt(f"list {d}", lambda: os.listdir(d))
        attempt(f"chdir {d}", lambda: os.close(os.open(d, os.O_PATH)))
        attempt(f"make {d}", lambda: os.mkdir(d + f"/new"))
        attempt(f"open-make {d}", lambda: os.open(d + "/newfile", os.O_CREAT | os.O_EXCL | 2))
        attempt(f"symlink {d}", lambda: os.symlink("x", d + "/newlink"))
        attempt(f"link {d}", lambda: os.link(d + "/mine", d + "/newhard"))
        attempt(f"mknod {d}", lambda: os.mknod(d + "/newfifo", 0o010644))
        attempt(f"rename in {d}", lambda: os.rename(d + "/mine", d + "/moved"))
        attempt(f"replace in {d}", lambda: os.rename(d + "/moved", d + "/root"))
        attempt(f"rename dir in {d}", lambda: os.rename(d + "/sub", d + "/sub2"))
        attempt(f"unlink root's in {d}", lambda: os.unlink(d + "/root"))
        attempt(f"unlink other's in {d}", lambda: os.unlink(d + "/others"))
        attempt(f"rmdir in {d}", lambda: os.rmdir(d + "/empty"))
        attempt(f"xattr {d}", lambda: os.setxattr(d, "trusted.x", b"x"))
        attempt(f"open-tmpfile {d}", lambda: os.open(d, os.O_TMPFILE | os.O_RDWR))
        attempt(f"chmod {d}", lambda: os.chmod(d, os.stat(d).st_mode & 0o7777))
        attempt(f"out of {d}", lambda: os.rename(d + "/others2", "common/" + name))
directories()
files(True)
print(json.dumps(results))
"""


def _build(top: Path) -> None:
    """The tree that each user attacks."""
    top.chmod(0o755)
    for name in ("files", "dirs", "common"):
        (top / name).mkdir()
        (top / name).chmod(0o777 if name == "common" else 0o755)
    for mode in _MODES:
        for acl in (False, True):
            path = top / "files" / f"{mode:04o}{'+' if acl else ''}"
            path.write_bytes(b"#!/bin/true\n")
            _finish(path, mode, acl)
    for mode in _DIRECTORY_MODES:
        for acl in (False, True):
            path = top / "dirs" / f"{mode:04o}{'+' if acl else ''}"
            (path / "sub").mkdir(parents=True)
            (path / "empty").mkdir()
            for name, uid in {
                "mine": _OWNER,
                "root": 0,
                "others": _OTHER,
                "others2": _OTHER,
            }.items():
                (path / name).write_bytes(b"x")
                (path / name).chmod(0o666)
                os.chown(path / name, uid, uid)
            (path / "sub/deep").write_bytes(b"x")
            _finish(path, mode, acl)
    # Make everything known to the kernel.
    for directory, _, names in os.walk(top):
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                file.read()


def _finish(path: Path, mode: int, acl: bool) -> None:
    os.chown(path, _OWNER, _GROUP)
    path.chmod(mode)
    if acl:
        entries = f"u:{_NAMED}:rwx,g:{_NAMED_GROUP}:r-x"
        subprocess.run(["setfacl", "-m", entries, path], check=True)


def _attack(top: Path, user: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", _SCRIPT, json.dumps(_USERS[user]), str(top)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    results: dict[str, int] = json.loads(done.stdout)
    return results


def _owners(top: Path) -> dict[str, tuple[int, ...]]:
    """What the attack left behind."""
    found: dict[str, tuple[int, ...]] = {}
    for directory, subdirectories, names in os.walk(top):
        for name in (*subdirectories, *names):
            info = os.lstat(os.path.join(directory, name))
            kind = stat.S_IFMT(info.st_mode)
            # tmpfs and we differ in nothing but sizes of directories
            size = info.st_size if stat.S_ISREG(kind) else 0
            where = os.path.relpath(os.path.join(directory, name), top)
            found[where] = (info.st_mode, info.st_uid, info.st_gid, info.st_nlink, size)
    return found


@pytest.fixture
def oracle() -> Iterator[Path]:
    """A directory on tmpfs."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm"))
    if shutil.which("setfacl") is None or _type(path) != "tmpfs":
        pytest.skip("needs setfacl and a tmpfs at /dev/shm")
    yield path
    shutil.rmtree(path)


def _type(path: Path) -> str:
    done = subprocess.run(
        ["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("user", sorted(_USERS))
def test_permissions_as_on_tmpfs(disk: Disk, oracle: Path, user: str) -> None:
    _build(oracle)
    _build(disk.mnt)
    theirs, ours = _attack(oracle, user), _attack(disk.mnt, user)
    assert len(theirs) > 700
    assert ours == theirs
    assert _owners(disk.mnt) == _owners(oracle)
    disk.umount()
    disk.fsck()


def test_root_alone_needs_no_check_by_the_kernel(unmounted: Disk) -> None:
    """Without allow_other nobody but root gets in, whatever the modes and whatever is cached, and
    for root what a superuser may not do still holds."""
    unmounted.mount()
    tool = unmounted.mnt / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o666)
    unmounted.mnt.chmod(0o777)
    assert tool.stat().st_size  # the name is cached now
    assert os.access(tool, os.R_OK | os.W_OK)
    assert not os.access(tool, os.X_OK)
    with pytest.raises(PermissionError):
        subprocess.run([tool], check=False)
    for script in (f"cat {tool}", f"ls {unmounted.mnt}", f"touch {unmounted.mnt}/new"):
        done = as_user(script, Path("/"), uid=_OTHER)
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    assert os.listdir(unmounted.mnt) == ["tool"]
