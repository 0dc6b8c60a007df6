"""The words of simulated vCPUs: a row for each, what is shared, and what things cost; times in picoseconds."""

# A vCPU's row.
CLOCK_PS = 0
"""When it goes on; NEVER_PS while it waits for someone."""
CURSOR = 1
END = 2
FROM_PS = 3
"""What is due by then is to run as fast as it can, and is never behind."""
BEHIND_PS = 4
"""The longest that another operation began after it was due."""
DRAINED = 5
"""Whether it drained its per-CPU list since its last operation."""
VCPU_COLUMNS = 6

# The costs, in picoseconds.
ORDER0_PS = 0
MOVED_PAGE_PS = 1
BLOCK_PS = 2
STAMP_PS = 3
CHECK_PS = 4
SMALL_FAULT_PS = 5
HUGE_FAULT_PS = 6
COSTS = 7

# What is shared.
LOCK_FREE_PS = 0
"""When the zone lock is free again."""
WHO = 1
"""The vCPU because of which a stretch ended."""
OPERATIONS = 2
"""Operations that were run in all."""
NEXT_PS = 3
"""After TIME_UP, when a vCPU goes on next; NEVER_PS if none does."""
BUSY_PS = 4
"""How long vCPUs were at work, in all; whoever reads it sets it back."""
SHARED_WORDS = 5
