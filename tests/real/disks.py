"""Small disks that a test makes and takes away again: full or read-only at will. Root only."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.ims_server import wait_until


def _run(*command: str) -> None:
    """Run a command that needs privileges; without them, or without the program, skip."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode:
        pytest.skip(f"cannot {' '.join(command[:3])}: {done.stderr.strip()}")


def mount(*arguments: str) -> None:
    """Mount a file system."""
    if os.geteuid():
        pytest.skip("mounting a small disk takes root")
    _run("mount", *arguments)


def unmount(where: Path) -> None:
    """Take a disk away, as soon as whoever uses it has ended."""
    wait_until(lambda: not subprocess.run(["umount", str(where)], check=False).returncode)


@contextmanager
def small_disk(where: Path, size: int = 4 << 20) -> Generator[Path]:
    """A disk in memory of so many bytes."""
    where.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "none", str(where))
    try:
        yield where
    finally:
        unmount(where)


def fill(disk: Path) -> Path:
    """Fill a disk to the last byte; the file that does it."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
    return ballast


class FailingDisk:
    """An ext4 file system in a file, which can be made to fail as a broken disk makes it."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.image"
        self.path = folder / "disk"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(16 << 20)
        _run("mkfs.ext4", "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Have it there, and writable."""
        mount("-o", "loop,errors=remount-ro", str(self._image), str(self.path))

    def unmount(self) -> None:
        """Take it away."""
        unmount(self.path)

    def fail(self) -> None:
        """Report an error of the disk to the kernel, which makes the file system read-only."""
        device = self.path.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        trigger = Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
        if not trigger.exists():
            pytest.skip("this kernel cannot make an ext4 file system fail")
        trigger.write_text("1")
