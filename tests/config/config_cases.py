"""What tests of the configuration share."""

import pytest

from tfcq.errors import UserError


def message_of(call, *arguments, **options):
    """The one line of the UserError that a call raises."""
    with pytest.raises(UserError) as raised:
        call(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)
