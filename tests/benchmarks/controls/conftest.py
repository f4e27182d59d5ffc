"""Settings of the suite `audit` import a plug-in."""

import pytest


@pytest.fixture(autouse=True)
def _without_plugins(without_plugins):
    """Each test begins without it, and leaves nothing of it."""
