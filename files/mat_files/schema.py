"""The columns of a run's results: name, type, unit and meaning, as data.

Tables are written, checked and documented from these (docs/results.md, the schema metadata of the
Parquet files). The namespace lab and the load test write the same tables.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, final

SCHEMA_VERSION: Final = 1
"""Changes when a column changes its meaning or goes; a new column does not change it."""

Type: TypeAlias = Literal["text", "integer", "number"]


@final
@dataclass(frozen=True, slots=True)
class Column:
    """One column. A column that is not `required` is empty where its value does not exist."""

    name: str
    type: Type
    unit: str
    description: str
    required: bool = False


@final
@dataclass(frozen=True, slots=True)
class Schema:
    """One table: its name, what a row is, and its columns in order."""

    name: str
    row: str
    columns: tuple[Column, ...]


_RUN: Final = Column("run", "integer", "", "Ordinal of the replication, from 0.", required=True)

PARTS: Final = ("away", "detect", "associate", "address", "register", "notify", "first_packet")
"""The parts of a handover, in the order in which they happen; `total` is their sum."""

DIRECTIONS: Final = ("up", "down")
"""From the mobile node to its peer, and back."""

HANDOVERS: Final = Schema(
    "handovers",
    "One row per handover: a node's preferred network changed from one to another.",
    (
        _RUN,
        Column("node", "text", "", "The node that moved.", required=True),
        Column("ordinal", "integer", "", "Number of the node's handover, from 1.", required=True),
        Column("from_network", "text", "", "Network that was preferred before.", required=True),
        Column("to_network", "text", "", "Network that is preferred after.", required=True),
        Column("from_moa", "text", "", "Mobile address before."),
        Column("to_moa", "text", "", "Mobile address after; empty if none was configured."),
        Column(
            "kind",
            "text",
            "",
            "soft: the old link was up when the new address was configured; hard: it was not.",
            required=True,
        ),
        Column(
            "time",
            "number",
            "s",
            "Begin: the old link was lost, or, if earlier, the new network was chosen.",
            required=True,
        ),
        Column("away", "number", "s", "From the begin until the new network was in reach."),
        Column("detect", "number", "s", "From then until the node acted on it."),
        Column("associate", "number", "s", "From then until the link to the new network was up."),
        Column("address", "number", "s", "From then until the new address was configured."),
        Column("register", "number", "s", "From then until an IMS Update Reply accepted it."),
        Column(
            "notify",
            "number",
            "s",
            "From then until the last peer's IMS had acknowledged the HA Notify; empty without"
            " HA Notify.",
        ),
        Column(
            "first_packet",
            "number",
            "s",
            "From then until a data packet had been delivered through the new address in each"
            " direction that carries traffic, with every peer; 0 if that was earlier, empty without"
            " traffic.",
        ),
        Column("total", "number", "s", "Sum of the parts; empty unless completed."),
        Column(
            "interruption_up",
            "number",
            "s",
            "Longest time without a delivery from the node to a peer, less the packet spacing.",
        ),
        Column("interruption_down", "number", "s", "The same from a peer to the node."),
        Column("lost_up", "integer", "packets", "Packets from the node never delivered."),
        Column("lost_down", "integer", "packets", "Packets to the node never delivered."),
        Column("peers", "integer", "", "Peers in use when the handover began.", required=True),
        Column(
            "outcome",
            "text",
            "",
            "completed; superseded: the next handover or a loss of the new link came first;"
            " unfinished: the run ended or the node left first.",
            required=True,
        ),
    ),
)

MESSAGES: Final = Schema(
    "messages",
    "One row per message type and hop: who sends it to whom.",
    (
        _RUN,
        Column("type", "text", "", "Message type by its name, such as MA Query.", required=True),
        Column(
            "from_role",
            "text",
            "",
            "Sender: MN (mobile node), CN (correspondent), DNS, resolver, DHCP, or an IMS's name.",
            required=True,
        ),
        Column("to_role", "text", "", "Receiver, likewise.", required=True),
        Column("sent", "integer", "messages", "Transmissions, repeats included.", required=True),
        Column("delivered", "integer", "messages", "Arrived at the receiver.", required=True),
        Column(
            "lost",
            "integer",
            "messages",
            "Lost on a link, dropped at a full queue, or sent to an address without owner; what is"
            " neither delivered nor lost was under way at the end.",
            required=True,
        ),
        Column("retransmitted", "integer", "messages", "Repeats, of those sent.", required=True),
        Column(
            "bytes",
            "integer",
            "bytes",
            "Length of all transmissions: UDP payload of MAT's messages and the DNS's, of all else"
            " the whole IP packet.",
            required=True,
        ),
        Column("ip_bytes", "integer", "bytes", "The same with IP and UDP header, whatever it is."),
    ),
)

IMS: Final = Schema(
    "ims",
    "One row per IMS and interval of time.",
    (
        _RUN,
        Column("ims", "text", "", "Name of the IMS, with #2, #3 … for replicas.", required=True),
        Column("start", "number", "s", "Begin of the interval.", required=True),
        Column("interval", "number", "s", "Length of the interval.", required=True),
        Column("received", "integer", "messages", "Arrived.", required=True),
        Column(
            "answered", "integer", "messages", "Answers sent, refusals included.", required=True
        ),
        Column(
            "refused", "integer", "messages", "Answers with a code other than 0.", required=True
        ),
        Column(
            "forwarded",
            "integer",
            "packets",
            "Of those that arrived, sent on by a home agent: data, and signalling for others.",
        ),
        Column("dropped", "integer", "messages", "Dropped because the queue was full."),
        Column("busy", "number", "", "Time that workers were busy, per worker: 0 to 1."),
        Column("queue_mean", "number", "messages", "Mean over time of the queue's length."),
        Column("queue_max", "integer", "messages", "Longest queue."),
        Column("wait_mean", "number", "s", "Mean time from arrival until a worker began."),
        Column("wait_p50", "number", "s", "Median of these times, within 1 % of itself."),
        Column("wait_p99", "number", "s", "Their 99th percentile, within 1 % of itself."),
        Column("wait_max", "number", "s", "Longest such time."),
        Column(
            "response_mean",
            "number",
            "s",
            "Mean time from a request's arrival until its answer left, the store included; without"
            " HA Notify that another IMS had to be asked for.",
        ),
        Column("response_p50", "number", "s", "Median of these times, within 1 % of itself."),
        Column("response_p99", "number", "s", "Their 99th percentile, within 1 % of itself."),
        Column("mappings", "integer", "", "Mappings held at the interval's end."),
    ),
)

FLOWS: Final = Schema(
    "flows",
    "One row per sender and receiver of data by role, over all flows between such.",
    (
        _RUN,
        Column("from_role", "text", "", "Sender: MN or CN.", required=True),
        Column("to_role", "text", "", "Receiver, likewise.", required=True),
        Column("sent", "integer", "packets", "Packets that applications sent.", required=True),
        Column("delivered", "integer", "packets", "Of these, reached applications.", required=True),
        Column(
            "lost", "integer", "packets", "Of these, had not by the end of the run.", required=True
        ),
        Column("delay_mean", "number", "s", "Mean time from sending to delivery."),
        Column(
            "stretch_mean",
            "number",
            "",
            "Mean path stretch of those delivered: mean delay of their way, by that of the straight"
            " one.",
        ),
        Column(
            "header_mean",
            "number",
            "bytes",
            "Mean header overhead of those delivered, summed over the hops of their way.",
        ),
    ),
)

LINKS: Final = Schema(
    "links",
    "One row per link with a rate, direction and interval of time; none for those never used.",
    (
        _RUN,
        Column("link", "text", "", "Name of the network or server at its end.", required=True),
        Column(
            "kind",
            "text",
            "",
            "What is at its end: network, ims or correspondents (their own site).",
            required=True,
        ),
        Column("direction", "text", "", "up: to the core; down: from it.", required=True),
        Column("start", "number", "s", "Begin of the interval.", required=True),
        Column("interval", "number", "s", "Length of the interval.", required=True),
        Column("arrived", "integer", "packets", "Came to be sent.", required=True),
        Column("dropped", "integer", "packets", "Of these, found the queue full.", required=True),
        Column("bytes", "integer", "bytes", "Length of the others, with IP header.", required=True),
        Column("busy", "number", "", "Time that it was sending: 0 to 1.", required=True),
        Column(
            "queue_mean",
            "number",
            "packets",
            "Mean over time of the number that wait, beside the one that is sent.",
            required=True,
        ),
        Column("wait_mean", "number", "s", "Mean time until its sending began, of those sent."),
        Column("wait_p99", "number", "s", "99th percentile of these times, within 1 % of itself."),
        Column("wait_max", "number", "s", "Longest such time."),
    ),
)

SCHEMAS: Final = (HANDOVERS, MESSAGES, IMS, FLOWS, LINKS)


def markdown(schema: Schema) -> str:
    """The documentation of one table: a line of text and a Markdown table of the columns."""
    rows = [
        f"| `{column.name}` | {column.type} | {column.unit} | {column.description} |"
        for column in schema.columns
    ]
    return "\n".join(
        [schema.row, "", "| column | type | unit | meaning |", "| --- " * 4 + "|", *rows]
    )
