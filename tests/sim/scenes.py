"""A scene put together by hand: one node, two networks, every kind of message once."""

from mat_files.ladder import LadderMessage
from mat_sim.animation import Disc, Handover, Link, Node, Party, Scene

SCENE = Scene(
    title="by hand",
    description="One node goes from A to B.",
    begin=0.0,
    end=4.0,
    networks=(Disc("A", 0.0, 0.0, 1.0), Disc("B", 3.0, 0.0, 1.0)),
    parties=(
        Party("IMS_MN", "ims"),
        Party("IMS_CN", "ims"),
        Party("DNS", "dns"),
        Party("CN1", "correspondent"),
    ),
    nodes=(
        Node(
            "m1",
            (((0.0, 0.3, -0.5), (2.0, 0.3, -0.5), (2.4, 3.3, -0.5), (4.0, 3.3, -0.5)),),
            (Link("A", 0.0, 0.0, 2.0), Link("B", 2.0, 2.4, 4.0)),
        ),
    ),
    messages=(
        LadderMessage(1.0, 1.01, "m1", "CN1", "data", None, "data"),
        LadderMessage(2.4, 2.41, "m1", "IMS_MN", "IMS Update", "1"),
        LadderMessage(2.41, 2.42, "IMS_MN", "m1", "IMS Update Reply", "1"),
        LadderMessage(2.42, None, "m1", "IMS_CN", "HA Notify", "2"),
        LadderMessage(2.425, 2.445, "IMS_CN", "DNS", "IMS?", None, "dns"),
        LadderMessage(2.45, 2.46, "IMS_CN", "IMS_MN", "MA Query", "3"),
    ),
    handovers=(Handover("m1", "hard", 2.0, 2.5),),
)
