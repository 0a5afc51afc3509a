"""What the lab raises."""


class LabError(Exception):
    """The lab cannot be built, or is not what was asked for; says what, and how to mend it."""
