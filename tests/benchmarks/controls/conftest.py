"""The suite `audit` has estimators that come with a plug-in."""

import pytest


@pytest.fixture(autouse=True)
def _audited(audited):
    """Lets settings of any suite be made."""
