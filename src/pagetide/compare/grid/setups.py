"""The five set-ups of the thread (S13), and when returning memory is worth it in one."""

SETUPS = {
    "burst": "an application that eats much memory a few times a day and frees it",
    "web": "a web server that is mostly idle",
    "database": "a database that fills memory with its cache",
    "churn": "heavy allocation and freeing all the time",
    "small": "a small guest that runs close to its limit",
}
"""What the guest does, by workload."""

GAIN_MIN = 0.02
"""What returns less than this share of what the host would hold is not worth switching on."""
