"""Which tests of a golden are left to `tools/test -m long`."""

import goldens
import pytest


@pytest.hookimpl(tryfirst=True)  # before marks deselect
def pytest_collection_modifyitems(items):
    for item in items:
        if (long := goldens.LONG.get(getattr(item, "originalname", ""))) and item.callspec.id in long:
            item.add_marker(pytest.mark.long)
