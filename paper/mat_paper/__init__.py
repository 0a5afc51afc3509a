"""The paper's evaluation, done over: `mat paper`.

Theory of operation. An evaluation has parts (`PARTS`). Each is measured into a `Record`: a
directory with the settings, the machine, and one row for each measurement, written as soon as it is
made. So Ctrl-C loses one measurement, and the same command goes on where it was. What is compared
takes turns: in each round every way is measured once, so that whatever else the machine does falls
on all of them alike, and a difference is taken within a round. Only when all that is wanted is
there is it summed up (`mat_paper.summary`), drawn (`mat_paper.figures`) and written
(`mat_paper.report`), from the record alone: `mat paper --from DIR` does that again anywhere.

Figures of the paper are data (`mat_paper.published`), with the page's own conditions, so that every
table can show them beside ours.

References: A. Seki et al., "Design and Implementation of IP Mobility Architecture MAT extended to
IPv4", sections 4 and 5.
"""

from typing import Final

PARTS: Final = {
    "ping": "round trips, as in table 4",
    "udp": "UDP throughput, as in figure 5",
    "ladders": "start of communication and handover, as in figures 2 and 3, drawn from packets",
    "handover": "handovers with DHCP in their parts, in the lab and in the simulator",
    "crowd": "handovers of many nodes at the same time, in the lab and in the simulator",
}
"""The parts of the evaluation, in their order, and what each is."""


class PaperError(Exception):
    """Something cannot be measured, or a result cannot be used; says what, and how to mend it."""
