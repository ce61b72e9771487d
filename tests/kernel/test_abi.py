"""The declared records against the C compiler's idea of the system's own header."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from libfs.kernel import abi

_HEADER = Path("/usr/include/linux/fuse.h")
_SIZES: dict[str, int | str] = {
    "struct fuse_in_header": abi.IN_HEADER_SIZE,
    "struct fuse_out_header": abi.OUT_HEADER.size,
    "struct fuse_entry_out": abi.ENTRY.size,
    "struct fuse_attr_out": abi.ATTR.size,
    "struct fuse_open_out": abi.OPEN.size,
    "struct fuse_write_out": abi.WRITE.size,
    "struct fuse_getxattr_out": abi.WRITE.size,
    "struct fuse_lseek_out": abi.LSEEK.size,
    "struct fuse_statfs_out": abi.STATFS.size,
    "struct fuse_init_out": abi.INIT.size,
    "struct fuse_dirent": abi.DIRENT.size,
    "struct fuse_forget_one": abi.FORGET_ONE.size,
    "struct fuse_notify_inval_inode_out": abi.NOTIFY_INODE.size,
    "struct fuse_notify_inval_entry_out": abi.NOTIFY_ENTRY.size,
    "struct fuse_getattr_in": abi.IN_GETATTR,
    "struct fuse_setattr_in": abi.IN_SETATTR,
    "struct fuse_mknod_in": abi.IN_MKNOD,
    "struct fuse_mkdir_in": abi.IN_MKDIR,
    "struct fuse_rename_in": abi.IN_RENAME,
    "struct fuse_rename2_in": abi.IN_RENAME2,
    "struct fuse_link_in": abi.IN_LINK,
    "struct fuse_open_in": abi.IN_OPEN,
    "struct fuse_create_in": abi.IN_CREATE,
    "struct fuse_read_in": abi.IN_READ,
    "struct fuse_write_in": abi.IN_WRITE,
    "struct fuse_release_in": abi.IN_RELEASE,
    "struct fuse_fsync_in": abi.IN_FSYNC,
    "struct fuse_getxattr_in": abi.IN_GETXATTR,
    "struct fuse_access_in": abi.IN_ACCESS,
    "struct fuse_forget_in": abi.IN_FORGET,
    "struct fuse_batch_forget_in": abi.IN_BATCH_FORGET,
    "struct fuse_fallocate_in": abi.IN_FALLOCATE,
    "struct fuse_lseek_in": abi.IN_LSEEK,
    "struct fuse_copy_file_range_in": abi.IN_COPY,
}
# Where the fields that matter most lie: a size may be right by accident.
_OFFSETS = {
    ("struct fuse_entry_out", "attr.mode"): "QQQQ8xQQQqqqIII",
    ("struct fuse_attr_out", "attr"): "Q8x",
    ("struct fuse_init_out", "max_pages"): "IIIIHHII",
    ("struct fuse_init_out", "flags2"): "IIIIHHIIH2x",
    ("struct fuse_setattr_in", "mode"): "I4xQq8xqqqIII",
    ("struct fuse_setattr_in", "uid"): "I4xQq8xqqqIIII4x",
    ("struct fuse_write_in", "write_flags"): "QqI",
    ("struct fuse_statfs_out", "st.bsize"): "QQQQQ",
}


@pytest.mark.skipif(
    not _HEADER.exists() or shutil.which("gcc") is None, reason="needs linux/fuse.h and gcc"
)
def test_abi_agrees_with_the_header(tmp_path: Path) -> None:
    lines = [f'P("%zu\\n", sizeof({name}));' for name in _SIZES]
    lines += [f'P("%zu\\n", offsetof({name}, {member}));' for name, member in _OFFSETS]
    lines += [f'P("%d\\n", FUSE_{flag.name});' for flag in abi.Init if flag < 1 << 31]
    source = tmp_path / "sizes.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/fuse.h>\n#define P printf\n"
        "int main(void) {" + "\n".join(lines) + "return 0;}\n"
    )
    program = tmp_path / "sizes"
    subprocess.run(["gcc", "-o", program, source], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=True)
    ours = [
        *(
            size if isinstance(size, int) else struct.calcsize("=" + size)
            for size in _SIZES.values()
        ),
        *(struct.calcsize("=" + before) for before in _OFFSETS.values()),
        *(int(flag) for flag in abi.Init if flag < 1 << 31),
    ]
    assert list(map(int, done.stdout.split())) == ours


def test_abi_statx_as_in_statx2() -> None:
    """Newer than some headers: the records of 7.39."""
    assert abi.STATX.size == 8 + 8 + 16 + 256
    assert struct.calcsize("=" + abi.IN_STATX) == 24
