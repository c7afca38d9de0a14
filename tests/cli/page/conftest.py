"""A real gateway over tiny workers, and the page in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from teleworld.cli.page.server import serving
from teleworld.cli.page.visit import Offer
from teleworld.client import WorldClient
from tests.services.gateway.conftest import gateway, mesh, redis_url  # noqa: F401 - fixtures
from tests.services.gateway.mesh import Gateway, png


@pytest.fixture
async def page(gateway: Gateway, tmp_path: Path) -> AsyncIterator[str]:  # noqa: F811 - the fixture
    """The address of a page that offers one picture."""
    hall = tmp_path / "hall.png"
    hall.write_bytes(png())
    async with (
        WorldClient(gateway.server.address) as client,
        serving(Offer(client, {hall.name: hall}, "nano", 7, {}), port=0) as address,
    ):
        yield address
