"""A line to a server that a test can cut, or make swallow what the server says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable


class Line:
    """`swallows`: nothing comes back any more.

    `cut_after`: all ends once it says so of what was sent on one connection so far.
    """

    def __init__(self) -> None:
        self.port = 0
        self.swallows = False
        self.cut_after: Callable[[bytes], bool] = lambda _: False
        self.cuts = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def carry(
        self, there: asyncio.StreamReader, to: asyncio.StreamWriter, *, back: bool
    ) -> None:
        sent = b""
        with contextlib.suppress(OSError):
            while data := await there.read(65536):
                if back and self.swallows:
                    continue
                sent = b"" if back else sent + data
                cut = not back and self.cut_after(sent)
                self.swallows = self.swallows or cut
                to.write(data)
                await to.drain()
                if cut:
                    await asyncio.sleep(0.3)  # the server does what it was told
                    self.swallows, self.cuts = False, self.cuts + 1
                    self.cut()
        to.close()

    def cut(self) -> None:
        """End all connections at once."""
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    """A line to the server on this port of this machine, until the end of the block."""
    line = Line()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        line._writers |= {writer, server_writer}
        try:
            await asyncio.gather(
                line.carry(reader, server_writer, back=False),
                line.carry(server_reader, writer, back=True),
            )
        finally:
            line._writers -= {writer, server_writer}

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        server.close()
        line.cut()
        await asyncio.sleep(0.05)
