"""DNS servers that misbehave on purpose, over real sockets on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import dns.asyncquery
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import uvloop
from dns.flags import Flag
from dns.message import Message
from dns.rcode import Rcode

from mat.ims_record import IMS_RECORD_TYPE, ImsRecord
from mat_real.dns import Responder, Server

Respond = Callable[[bytes], Iterable[bytes]]
"""From a question to the datagrams that come back."""

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class FakeServer(asyncio.DatagramProtocol):
    """A UDP socket that answers as told; `seen` are the questions it got, `places` from where."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.seen: list[bytes] = []
        self.places: list[tuple[str, int]] = []
        self.transport: Any = None
        self.delay = 0.0

    @property
    def server(self) -> Server:
        host, port = self.transport.get_extra_info("sockname")[:2]
        return host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.seen.append(data)
        self.places.append(addr)
        answers = list(self.respond(data))
        asyncio.get_running_loop().call_later(self.delay, self.send, answers, addr)

    def send(self, answers: list[bytes], addr: Any) -> None:
        for answer in answers:
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def fake(respond: Respond, port: int = 0) -> AsyncIterator[FakeServer]:
    loop = asyncio.get_running_loop()
    _, server = await loop.create_datagram_endpoint(
        lambda: FakeServer(respond), local_addr=("127.0.0.1", port)
    )
    try:
        yield server
    finally:
        server.transport.close()


@asynccontextmanager
async def serving(responder: Responder) -> AsyncIterator[Server]:
    endpoint = await responder.start("127.0.0.1", 0)
    try:
        yield "127.0.0.1", endpoint.port
    finally:
        await responder.close()


@asynccontextmanager
async def proxy(
    upstream: Server, alter: Callable[[Message], Message], port: int = 0
) -> AsyncIterator[Server]:
    """A server that passes questions on, by TCP, and changes the answers."""
    async with AsyncExitStack() as stack:
        middle = await stack.enter_async_context(fake(silence, port))
        tasks: set[asyncio.Task[None]] = set()

        async def pass_on(question: bytes, addr: Any) -> None:
            answer = await dns.asyncquery.tcp(
                dns.message.from_wire(question), upstream[0], port=upstream[1]
            )
            answer.id = int.from_bytes(question[:2])
            middle.send([alter(answer).to_wire(max_size=65535, want_shuffle=False)], addr)

        def respond(question: bytes) -> Iterable[bytes]:
            task = asyncio.get_running_loop().create_task(pass_on(question, middle.places[-1]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return ()

        middle.respond = respond
        yield middle.server


def silence(_: bytes) -> Iterable[bytes]:
    return ()


def answer_to(question: bytes) -> Message:
    """An empty answer, to be filled."""
    made = dns.message.make_response(dns.message.from_wire(question), recursion_available=True)
    made.flags |= Flag.AA
    return made


def code(rcode: Rcode) -> Respond:
    """Answers with an error."""

    def respond(question: bytes) -> Iterable[bytes]:
        made = answer_to(question)
        made.set_rcode(rcode)
        return [made.to_wire()]

    return respond


def rdata_answer(*contents: bytes) -> Respond:
    """Answers with records of the IMS type that have these contents."""

    def respond(question: bytes) -> Iterable[bytes]:
        made = answer_to(question)
        records = [
            dns.rdata.from_wire(
                dns.rdataclass.IN, dns.rdatatype.RdataType.make(IMS_RECORD_TYPE), c, 0, len(c)
            )
            for c in contents
        ]
        made.answer.append(dns.rrset.from_rdata_list(made.question[0].name, 300, records))
        return [made.to_wire()]

    return respond


def record_answer(*records: ImsRecord) -> Respond:
    return rdata_answer(*(record.to_rdata() for record in records))


def alias_answer(target: str) -> Respond:
    """Answers that the name is an alias."""

    def respond(question: bytes) -> Iterable[bytes]:
        made = answer_to(question)
        name = made.question[0].name
        made.answer.append(dns.rrset.from_text(name, 300, "IN", "CNAME", target))
        return [made.to_wire()]

    return respond
