"""What a bad setting is answered with. On its own, since the command line needs it before anything else is loaded."""


class ConfigError(ValueError):
    """A setting that cannot be had; the message is one sentence that says so and what would do."""
