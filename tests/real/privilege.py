"""What tests may need that not every machine has."""

import os

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root")
