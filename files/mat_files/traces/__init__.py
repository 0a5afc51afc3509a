"""Movement traces: where each node is at each time, read from what others write.

`read_trace` recognises SUMO FCD XML, ns-2 setdest, BonnMotion, GPX and the native CSV
`t,node,x,y`, each plain or gzipped, and returns a `Trace`. The rules are the same for all of them:

- Times in seconds, never decreasing; positions in metres; no value missing or infinite.
- A node is present from its first row to its last. Rows of one node come at the trace's step; a
  node that skips a step is a gap, which is an error, or, where asked for, an absence.
- Nodes are numbered in the order in which they appear. SUMO's traceExporter numbers them so too,
  hence a file converted by it describes the same movement under other names.
"""

from mat_files.traces._paths import LARGEST
from mat_files.traces._read import (
    FORMATS,
    SAMPLE_STEP,
    Format,
    detect_format,
    read_trace,
    trace_files,
)
from mat_files.traces._trace import Gaps, Trace

__all__ = [
    "FORMATS",
    "LARGEST",
    "SAMPLE_STEP",
    "Format",
    "Gaps",
    "Trace",
    "detect_format",
    "read_trace",
    "trace_files",
]
