"""Mount options, mounting as somebody else, and places where nothing can be mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libfs.kernel import mounting
from libfs.kernel.mounting import MountFailed, Wanted
from tests.support import NOBODY, Disk, command

_AS_NOBODY = """
import os, sys, encodings.idna, subprocess, _posixsubprocess
sys.path.insert(0, {root!r})
from libfs.kernel.session import Mount
from libfs.posix import Posix, User
from libfs.posix.memory import MemoryFs
os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid})
posix = Posix(MemoryFs())
posix.setattr(User(0, 0), posix.root, uid={uid}, gid={uid})
Mount(posix, {mnt!r}, source="a name, with a comma", ready=lambda: print("ready", flush=True)).run()
"""


def test_options_of_the_kernel_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Wanted.parse([]).flags == {"nosuid", "nodev"}
    assert Wanted.parse(["suid", "dev", "noexec", "ro"]).flags == {"noexec", "ro"}
    assert Wanted.parse(["ro", "rw", "sync", "async"]).flags == {"nosuid", "nodev"}
    wanted = Wanted.parse(["allow_other", "strictatime", "default_permissions", "nonempty"])
    assert wanted.allow_other
    assert wanted.strictatime
    assert wanted.spin
    assert not Wanted.parse(["nospin"]).spin
    assert wanted.common() == ["default_permissions", "allow_other"]
    assert Wanted.parse(["allow_other"]).default_permissions
    assert Wanted.parse(["default_permissions"]).common() == ["default_permissions"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert Wanted.parse([]).common() == ["default_permissions"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert Wanted.parse([]).common() == []
    with pytest.raises(MountFailed, match="allow_root"):
        Wanted.parse(["allow_root"])


def test_mount_on_nothing_says_why(tmp_path: Path) -> None:
    if os.getuid() or not os.path.exists(mounting.DEVICE):
        pytest.skip("needs root and /dev/fuse")
    with pytest.raises(MountFailed, match="No such file"):
        mounting.mount(str(tmp_path / "none"), "x", Wanted())


@pytest.mark.fuse
def test_mount_tool_takes_the_transport(unmounted: Disk) -> None:
    done = command("mount.xnfs", "-o", "transport=telepathy", unmounted.image, unmounted.mnt)
    assert done.returncode == 1
    done = command(
        "mount.xnfs", "-o", "transport=kernel,allow_root", unmounted.image, unmounted.mnt
    )
    assert done.returncode == 32
    assert "allow_root" in done.stderr
    unmounted.mount("ro", "noexec")
    assert "ro,nosuid,nodev,noexec" in Path("/proc/self/mountinfo").read_text()


@pytest.mark.fuse
def test_mount_raises_the_read_ahead(disk: Disk) -> None:
    info = os.stat(disk.mnt)
    bdi = Path(f"/sys/class/bdi/{os.major(info.st_dev)}:{os.minor(info.st_dev)}/read_ahead_kb")
    assert int(bdi.read_text()) == mounting.READ_AHEAD_KIB


@pytest.mark.fuse
def test_mount_by_fusermount(tmp_path: Path) -> None:
    """As nobody. /dev/fuse may be root's here, so a copy for all is laid over it, in a namespace of
    mounts that nobody else sees."""
    if os.getuid() or not (shutil.which("fusermount3") or shutil.which("fusermount")):
        pytest.skip("needs root and fusermount")
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    mnt = tmp_path / "mnt"
    mnt.mkdir()
    os.chown(mnt, NOBODY, NOBODY)
    script = tmp_path / "serve.py"
    root = str(Path(__file__).parents[2])
    script.write_text(_AS_NOBODY.format(root=root, uid=NOBODY, mnt=str(mnt)))
    shell = f"""
        set -e
        mknod -m 666 {tmp_path}/device c 10 229
        mount --make-rprivate /
        mount --bind {tmp_path}/device /dev/fuse
        {sys.executable} {script} > {tmp_path}/out 2>&1 &
        server=$!
        for i in $(seq 200); do grep -q ready {tmp_path}/out && break; sleep 0.05; done
        grep ' {mnt} ' /proc/mounts
        trap 'kill -9 $server 2>/dev/null || true' EXIT
        cd {tmp_path}
        setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups sh -c 'echo x > mnt/f; cat mnt/f'
        ls {mnt} 2>/dev/null && echo "root may look"
        kill $server
        wait $server
        grep ' {mnt} ' /proc/mounts || echo gone
    """
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", shell],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        f"a\\040name,\\040with\\040a\\040comma {mnt} fuse.xnfs rw,nosuid,nodev"
    )
    assert lines[1:] == ["x", "gone"]


@pytest.mark.fuse
def test_mount_clears_what_a_killed_server_left(disk: Disk) -> None:
    """Its attributes are cached, so that a look at the directory does not show that it is dead."""
    (disk.mnt / "f").touch()
    for _ in range(2):
        os.stat(disk.mnt)
        disk.kill()
        disk.mount("allow_other")
    assert Path("/proc/self/mountinfo").read_text().count(f" {disk.mnt} ") == 1
