"""The smallest burst: one allocation of some blocks on one vCPU, and their free."""

from pagetide.workload.lives import lives
from pagetide.workload.plan import plan_of
from pagetide.workload.stream import Mark, Stream


def eat_and_free(blocks: int, order: int, *, settle: bool = True) -> Stream:
    """As a stream with two marks; with `settle` it is over once the design is at rest."""
    each = lives([0.0] * blocks, 0.0, order, 0)
    marks = (Mark(0, "eating", 0, eats=True), Mark(blocks, "freeing", 0, settle=settle))
    return plan_of(each, name="", end_s=0.0).whole()._replace(marks=marks)
