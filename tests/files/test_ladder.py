"""The ladder diagram as text."""

import io
import sys

import pytest

from mat_files.ladder import WIDTH, LadderMessage, ladder

Message = LadderMessage
HANDOVER = [
    Message(1.0, 1.005, "MN", "IMS_MN", "IMS Update", "1"),
    Message(1.006, 1.011, "IMS_MN", "MN", "IMS Update Reply", "1"),
    Message(1.011, None, "MN", "IMS_CN", "HA Notify", "2"),
    Message(2.011, 2.021, "MN", "IMS_CN", "HA Notify", "2"),
    Message(2.022, 2.024, "IMS_CN", "DNS", "IMS record?", None, "dns"),
    Message(2.025, 2.027, "DNS", "IMS_CN", "IMS record", None, "dns"),
    Message(2.027, 2.037, "IMS_CN", "IMS_MN", "MA Query", "3"),
    Message(2.038, 2.048, "IMS_MN", "IMS_CN", "MA Answer", "3"),
    Message(2.049, 2.059, "IMS_CN", "MN", "HA Notify Ack", "4"),
    Message(2.06, 2.07, "MN", "CN", "data", None, "data"),
    Message(2.08, 2.09, "MN", "CN", "data", None, "data"),
    Message(2.1, None, "CN", "MN", "data", None, "data"),
]
ORDER = ("MN", "IMS_MN", "DNS", "IMS_CN", "CN")
GOLDEN = """\
  sent ms  MN                 IMS_MN             DNS                IMS_CN             CN
      0.0  │─ (1) IMS Update ▶│                  │                  │                  │       5.0
           │ (1) IMS Update Reply                │                  │                  │
      6.0  │◀─────────────────│                  │                  │                  │      11.0
     11.0  │──────────────────── (2) HA Notify ────────────────────✗│                  │      lost
   1011.0  │──────────────────── (2) HA Notify ────────────────────▶│                  │    1021.0
   1022.0  │                  │                  │◀┄ IMS record? ┄┄┄│                  │    1024.0
   1025.0  │                  │                  │┄┄┄ IMS record ┄┄▶│                  │    1027.0
   1027.0  │                  │◀────────── (3) MA Query ────────────│                  │    1037.0
   1038.0  │                  │─────────── (3) MA Answer ──────────▶│                  │    1048.0
   1049.0  │◀───────────────── (4) HA Notify Ack ───────────────────│                  │    1059.0
   1060.0  │╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ data ×2 ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌▶│    1070.0
   1100.0  │✗╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌ data ╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌│      lost
           │                  │                  │                  │                  │
"""


def test_ladder_of_a_handover() -> None:
    assert ladder(HANDOVER, ORDER, ascii_only=False) + "\n" == GOLDEN


ASCII = """\
  sent ms  MN                        IMS_MN                    IMS_CN                    CN
      0.0  |---- (1) IMS Update ---->|                         |                         |       5.0
      6.0  |< (1) IMS Update Reply --|                         |                         |      11.0
     11.0  |------------------ (2) HA Notify -----------------x|                         |      lost
   1011.0  |------------------ (2) HA Notify ----------------->|                         |    1021.0
   1027.0  |                         |<---- (3) MA Query ------|                         |    1037.0
   1038.0  |                         |----- (3) MA Answer ---->|                         |    1048.0
   1049.0  |<--------------- (4) HA Notify Ack ----------------|                         |    1059.0
   1060.0  |================================== data x2 =================================>|    1070.0
   1100.0  |x================================== data ====================================|      lost
           |                         |                         |                         |
"""


def test_ladder_without_unicode() -> None:
    signals = [message for message in HANDOVER if message.kind != "dns"]
    text = ladder(signals, ORDER, ascii_only=True)
    assert text + "\n" == ASCII
    assert text.isascii()


def test_ladder_follows_the_encoding_of_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, expected in (("ascii", True), ("utf-8", False)):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        assert ladder(HANDOVER).isascii() is expected


def test_ladder_keeps_to_its_width() -> None:
    many = [Message(i, i + 1, "MN", f"participant {i}", "a label of length", "1") for i in range(9)]
    for messages in (HANDOVER, many, HANDOVER[:1]):
        assert max(map(len, ladder(messages, ORDER, ascii_only=False).splitlines())) <= WIDTH


def test_ladder_of_nothing_is_empty() -> None:
    assert ladder([]) == ""


def test_ladder_puts_who_is_not_named_before_the_last() -> None:
    head = ladder(HANDOVER, ("MN", "CN"), ascii_only=True).splitlines()[0]
    assert head.split() == ["sent", "ms", "MN", "IMS_MN", "IMS_CN", "DNS", "CN"]
