"""One whole record for all tests that read it."""

from pathlib import Path

import pytest

from mat_paper.record import Record
from tests.paper.records import whole


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A record of all parts; read it, and write elsewhere."""
    return whole(tmp_path_factory.mktemp("record") / "result")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A directory that is not there yet."""
    return tmp_path / "result"
