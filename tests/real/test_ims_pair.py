"""Two servers with a DNS between them: HA Notify → DNS → MA Query to IMS_MN → Ack."""

import os
import re
import signal
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mat.address import parse_address
from mat.messages import Code, HaAnswer, HaNotify
from tests.real.ims_server import Client, Server, ask, free_port, key, running, wait_until

CN, MN = key(1, "10.1.0.1"), key(2, "10.2.0.1")
HERE = "198.51.100.9"


@contextmanager
def pair(
    folder: Path, workers: int = 1, more: dict[str, dict[str, str]] | None = None
) -> Generator[tuple[Server, Server]]:
    """IMS_CN and IMS_MN; the embedded responder of IMS_MN says where IMS_MN is.

    `more` goes into the configuration of IMS_CN.
    """
    dns, port = free_port(), free_port()
    there, here = folder / "mn", folder / "cn"
    there.mkdir()
    here.mkdir()
    of_mn = {
        "ims": {"zones": '["10.2.0.0/16"]', "listen": f'["127.0.0.1:{port}"]'},
        "responder": {
            "listen": f'"127.0.0.1:{dns}"',
            "zones": '["2.10.in-addr.arpa", "3.10.in-addr.arpa", "4.10.in-addr.arpa"]',
            "records": '{"10.4.0.0/16" = "10 9 127.0.0.1", '
            f'"10.2.0.0/16" = "10 {port} 127.0.0.1"}}',
        },
    }
    of_cn = {
        "ims": {"zones": '["10.1.0.0/16"]', "workers": str(workers)},
        "dns": {"servers": f'["127.0.0.1:{dns}"]'},
        "protocol": {"initial_timeout": "0.2", "minimum_timeout": "0.1"},
        **(more or {}),
    }
    with running(there, [MN], of_mn) as ims_mn, running(here, [CN], of_cn) as ims_cn:
        assert ims_mn.port != ims_cn.port
        ims_mn.port = port
        yield ims_cn, ims_mn


def test_a_notice_makes_one_ims_ask_the_other_and_answer_for_it(tmp_path: Path) -> None:
    with (
        pair(tmp_path) as (ims_cn, ims_mn),
        Client(ims_cn.port) as asker,
        Client(ims_mn.port) as mn,
    ):
        assert asker.update(CN, ["203.0.113.7"]) is not None
        assert mn.update(MN, [HERE]) is not None
        before = asker.identify(HERE)
        assert before is not None
        assert before.code == Code.NO_MAPPING
        ack = asker.notify("10.2.0.1", "10.1.0.1")
        assert ack is not None
        assert ack.code == Code.SUCCEEDED
        assert ack.mobile_addresses == (parse_address("203.0.113.7"),)
        after = asker.identify(HERE)
        assert isinstance(after, HaAnswer)
        assert after.home_addresses == (MN.home_address,)
        assert ask(ims_mn.control)["requests"]["MA Query"]["received"] == 1
        assert ask(ims_cn.control)["asked_other_ims"] == 1


def test_a_notice_of_a_version_that_the_other_does_not_hold_has_to_be_repeated(
    tmp_path: Path,
) -> None:
    with (
        pair(tmp_path) as (ims_cn, ims_mn),
        Client(ims_cn.port) as asker,
        Client(ims_mn.port) as mn,
    ):
        reply = mn.update(MN, [HERE])
        assert reply is not None
        assert reply.authentication is not None
        version = reply.authentication.freshness
        later = asker.notify("10.2.0.1", "10.1.0.1", version + 1)
        assert later is not None
        assert later.code == Code.TRY_AGAIN
        now = asker.notify("10.2.0.1", "10.1.0.1", version)
        assert now is not None
        assert now.code == Code.SUCCEEDED


def test_a_node_without_a_record_and_a_silent_ims_are_told_apart(tmp_path: Path) -> None:
    with pair(tmp_path) as (ims_cn, _), Client(ims_cn.port) as asker:
        nobody = asker.notify("10.3.0.1", "10.1.0.1")
        assert nobody is not None
        assert nobody.code == Code.NO_MAPPING
        silent = asker.notify("10.4.0.1", "10.1.0.1")
        assert silent is not None
        assert silent.code == Code.TRY_AGAIN


def test_notices_of_nodes_of_the_same_ims_ask_nobody(tmp_path: Path) -> None:
    other = key(3, "10.1.0.3")
    with running(tmp_path, [CN, other]) as server, Client(server.port) as node:
        assert node.update(CN, [HERE]) is not None
        assert node.update(other, ["198.51.100.3"]) is not None
        ack = node.notify("10.1.0.3", "10.1.0.1")
        assert ack is not None
        assert ack.code == Code.SUCCEEDED
        assert ask(server.control)["asked_other_ims"] == 0


def test_what_one_worker_learned_of_a_foreign_node_all_workers_know(tmp_path: Path) -> None:
    with pair(tmp_path, workers=3) as (ims_cn, ims_mn), Client(ims_mn.port) as mn:
        assert mn.update(MN, [HERE]) is not None
        with Client(ims_cn.port) as notifier:
            assert notifier.notify("10.2.0.1", "10.1.0.1") is not None
        for _ in range(30):
            with Client(ims_cn.port) as asker:
                found = asker.identify(HERE)
                assert isinstance(found, HaAnswer)
                assert found.home_addresses == (MN.home_address,)


def test_what_a_worker_counted_in_the_dns_outlives_it(tmp_path: Path) -> None:
    port = free_port()

    def asked_in_the_dns() -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            text = page.read().decode()
        return float(re.findall(r'^mat_ims_dns_total{what="queries"} (\S+)', text, re.MULTILINE)[0])

    metrics = {"metrics": {"listen": f'"127.0.0.1:{port}"'}}
    with pair(tmp_path, more=metrics) as (ims_cn, _), Client(ims_cn.port) as asker:
        assert asker.notify("10.3.0.1", "10.1.0.1") is not None
        wait_until(lambda: asked_in_the_dns() > 0)
        before = asked_in_the_dns()
        (worker,) = ims_cn.workers()
        os.kill(worker, signal.SIGKILL)
        assert asker.notify("10.3.0.2", "10.1.0.1") is not None
        wait_until(lambda: asked_in_the_dns() > before)


def test_a_notice_that_waits_for_another_ims_is_answered_before_the_server_stops(
    tmp_path: Path,
) -> None:
    # Repeated in time, the inquiry would end before the other IMS goes on.
    patient = {"protocol": {"initial_timeout": "2.0", "minimum_timeout": "2.0"}}
    with (
        pair(tmp_path, more=patient) as (ims_cn, ims_mn),
        asked_in_vain(ims_cn, ims_mn) as (node, notify),
    ):
        ims_cn.process.send_signal(signal.SIGTERM)
        # Having begun to stop, it answers nobody else, but who waits for the other IMS.
        with Client(ims_cn.port) as late:
            wait_until(lambda: late.query("10.1.0.1", attempts=1) is None)
        os.kill(ims_mn.workers()[0], signal.SIGCONT)
        ack = node.answer(notify)
        assert ack is not None
        assert ack.code == Code.SUCCEEDED
        assert ims_cn.process.wait(30) == 0


def test_the_response_time_of_a_notice_begins_with_its_arrival(tmp_path: Path) -> None:
    with pair(tmp_path) as (ims_cn, ims_mn), asked_in_vain(ims_cn, ims_mn) as (node, notify):
        time.sleep(0.5)
        os.kill(ims_mn.workers()[0], signal.SIGCONT)
        assert node.answer(notify) is not None
        response = ask(ims_cn.control)["requests"]["HA Notify"]["response"]
        assert response["p99"] >= 0.5


@contextmanager
def asked_in_vain(ims_cn: Server, ims_mn: Server) -> Generator[tuple[Client, HaNotify]]:
    """Who sent a notice, and the notice, while the IMS that is asked about it does not answer."""
    with Client(ims_cn.port) as node, Client(ims_mn.port) as mn:
        assert node.update(CN, ["203.0.113.7"]) is not None
        assert mn.update(MN, [HERE]) is not None
        # What the DNS says is known by now; so it is the other IMS that is waited for.
        assert node.notify("10.2.0.1", "10.1.0.1") is not None
        newer = mn.update(MN, ["198.51.100.10"])
        assert newer is not None
        assert newer.authentication is not None
        (worker,) = ims_mn.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            notify = HaNotify(
                77, MN.home_address, CN.home_address, newer.authentication.freshness, nonce=bytes(8)
            )
            node.send(notify)
            wait_until(lambda: ask(ims_cn.control)["asked_other_ims"] >= 2)
            yield node, notify
        finally:
            os.kill(worker, signal.SIGCONT)
