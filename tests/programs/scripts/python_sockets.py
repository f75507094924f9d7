"""Sockets over the loopback: asyncio streams, socketserver and http.server with urllib."""

from __future__ import annotations

import asyncio
import http.server
import socket
import threading
import urllib.request


async def streams() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(-1)
        writer.write(data[::-1])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def client(text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    async with server:
        print(await asyncio.gather(*(client(b"client %d" % n) for n in range(10))))
        print(len(await client(b"x" * 1_000_000)))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def web() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for path in ("/", "/page?x=1"):
        with opener.open(address + path) as response:
            print(response.status, response.read())
    server.shutdown()
    thread.join()
    server.server_close()


def datagrams() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.sendto(b"datagram", one.getsockname())
        print(one.recvfrom(100)[0])
    print(socket.gethostbyname("localhost"))


if __name__ == "__main__":
    asyncio.run(streams())
    web()
    datagrams()
