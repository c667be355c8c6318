"""Which tests of a golden are left to `tools/test -m long`."""

import goldens
import pytest


@pytest.hookimpl(tryfirst=True)  # before marks deselect
def pytest_collection_modifyitems(items):
    for item in items:
        replicated = getattr(item, "originalname", "") == "test_two_replicas_take_the_step_of_one"
        if replicated and item.callspec.id in goldens.LONG_ON_REPLICAS:
            item.add_marker(pytest.mark.long)
