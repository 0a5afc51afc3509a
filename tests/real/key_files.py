"""What the tests of key files share."""

import os
import stat
from pathlib import Path
from typing import Final

import pytest

from mat_real.key_file import KeyFileError, parse_home
from mat_real.keys import load

ROOT: Final = Path(__file__).parents[2]
NOW: Final = 1_800_000_000.0
"""2027-01-15T08:00:00Z"""
SECRET: Final = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I="
HOME: Final = parse_home("10.1.2.3")
VAN: Final = parse_home("10.1.4.0/24")

needs_root: Final = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another user's file")


def put(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def problems(path: Path) -> list[str]:
    with pytest.raises(KeyFileError) as raised:
        load(path, lambda: NOW)
    assert SECRET not in str(raised.value)
    return str(raised.value).splitlines()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def beside(path: Path) -> list[str]:
    """What else is in the file's folder."""
    return [other.name for other in path.parent.iterdir() if other != path]


def environment() -> dict[str, str]:
    folders = [ROOT, ROOT / "files", ROOT / "real"]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
