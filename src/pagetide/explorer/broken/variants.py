"""What is broken on purpose: the explorer must catch each, or it proves nothing."""

from pagetide.explorer.broken.balloon import BALLOON
from pagetide.explorer.broken.frames import FRAMES
from pagetide.explorer.broken.guest import GUEST
from pagetide.explorer.broken.host import HOST
from pagetide.explorer.broken.migratetypes import MIGRATETYPES
from pagetide.explorer.broken.pool import POOL
from pagetide.explorer.broken.vcpu import VCPU
from pagetide.explorer.broken.worker import WORKER

VARIANTS = GUEST | HOST | FRAMES | BALLOON | WORKER | VCPU | POOL | MIGRATETYPES
"""By name."""
