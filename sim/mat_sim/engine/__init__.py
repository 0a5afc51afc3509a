"""The engine: the real protocol machines in a modelled world, SimPy carrying the time.

Start reading at `_simulation.py`, which puts the parts together. `_clock.py` is the time,
`_network.py` the links between sites, `_station.py` an IMS as a queue around the real machine,
`_host.py` a node with its links and its kernel's table, `_handover.py` and `_tally.py` what is
written down. `_baseline.py` puts other systems in MAT's place.
"""

from mat_sim.engine._simulation import Run, simulate

__all__ = ["Run", "simulate"]
