"""The namespace lab: MAT's network on one machine, in network namespaces, with real programs.

Start reading at `lab.py`; `plan.py` says what there is and which addresses it has, `layout.py` how
it is wired.
"""

from mat_real.lab.errors import LabError
from mat_real.lab.from_scenario import plan_of
from mat_real.lab.handovers import handover_rows, write_results
from mat_real.lab.impairment import WireReport
from mat_real.lab.lab import Lab
from mat_real.lab.measure import Measured
from mat_real.lab.moves import Move
from mat_real.lab.plan import Plan, Quality
from mat_real.lab.play import Played
from mat_real.lab.programs import Program
from mat_real.lab.recording import Recording, Transmission
from mat_real.lab.run import Outcome, Outlook, ScenarioRun
from mat_real.lab.simple import simple_plan
from mat_real.lab.state import Leftover, leftovers, remove_leftovers
from mat_real.lab.streams import Flow, Stream
from mat_real.lab.user_namespace import enter_user_namespace

__all__ = [
    "Flow",
    "Lab",
    "LabError",
    "Leftover",
    "Measured",
    "Move",
    "Outcome",
    "Outlook",
    "Plan",
    "Played",
    "Program",
    "Quality",
    "Recording",
    "ScenarioRun",
    "Stream",
    "Transmission",
    "WireReport",
    "enter_user_namespace",
    "handover_rows",
    "leftovers",
    "plan_of",
    "remove_leftovers",
    "simple_plan",
    "write_results",
]
