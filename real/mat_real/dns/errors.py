"""What the DNS part raises."""


class DnsError(Exception):
    """What cannot be done with the DNS; says what, where and how to mend it."""


class ResolutionError(Exception):
    """The DNS does not say what it was asked; says why."""


class UnansweredError(ResolutionError):
    """No server gave a usable answer; says what each did."""


class BogusError(ResolutionError):
    """An answer that is not authentic, or not even meant to be, where that is asked for."""
