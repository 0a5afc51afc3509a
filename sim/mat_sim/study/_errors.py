"""What a study raises beside `ScenarioError` and `ResultsError`."""


class StudyError(Exception):
    """A study that cannot go on: processes that end, a cluster that is not there."""


class PrecisionNotReached(UserWarning):
    """The greatest number of runs was done, and the interval is still wider than was wanted."""
