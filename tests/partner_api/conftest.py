from collections.abc import AsyncIterator

import pytest
from tests.partner_api.receivers import Receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    listening = Receiver()
    await listening.up()
    yield listening
    await listening.down()
