"""Generated movement: random waypoint, a train, a crowd.

Each model is a function of its table in the scenario, of the networks, and of a stream of
randomness, which `mat_files.mobility` derives from the scenario's seed and the run. All make
`AttachmentEvents` of nodes named MN1, MN2 …; none makes anything per node but numbers in columns.
Those in which nodes have places make a `Trace` of them, too, of equal arguments the same movement.
"""

from mat_files.movement._crowd import crowd_events
from mat_files.movement._random_waypoint import random_waypoint_events, random_waypoint_trace
from mat_files.movement._train import train_events, train_trace

__all__ = [
    "crowd_events",
    "random_waypoint_events",
    "random_waypoint_trace",
    "train_events",
    "train_trace",
]
