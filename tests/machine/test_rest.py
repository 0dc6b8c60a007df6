"""What a design leaves by design, from the settings alone."""

import pytest

from pagetide.guest.allocator.zone import Zone
from pagetide.guest.reporting.registry import DESIGNS, make_design
from pagetide.machine.config import RunConfig
from pagetide.machine.rest import rest_blocks, rest_bytes, why_it_rests

pytestmark = pytest.mark.jit  # its kernels are tested both ways elsewhere


@pytest.mark.parametrize(
    "settings", [{}, {"wake_blocks": 5, "capacity": 4, "vcpus": 3}, {"wake": "merge"}, {"wake": "threshold"}]
)
@pytest.mark.parametrize("name", list(DESIGNS))
def test_the_rest_is_what_the_design_itself_says(name: str, settings: dict[str, int | str]) -> None:
    """Known without making the design, and why is said of each that has one."""
    if name in ("sync", "shared", "balloon"):  # nobody to wake, or by the clock
        settings = {key: value for key, value in settings.items() if key != "wake"}
    config = RunConfig(design=name, ram_bytes=64 << 20, **settings)  # type: ignore[arg-type]
    zone = Zone(config.ram_bytes >> 12, vcpus=config.vcpus)
    assert rest_blocks(config) == (0 if name == "off" else make_design(name, zone, config.tuning).leftover_blocks_max)
    assert bool(why_it_rests(config)) == bool(rest_bytes(config))
