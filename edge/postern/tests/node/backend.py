"""A backend of Python's http.server, which takes nearly everything, with a reader of bodies that takes whatever `int` does.

For each connection that has ended it prints one line: the port of its other end, and every whole request, as JSON. It ends
with its standard input.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOCK = threading.Lock()


def say(port, what):
    with LOCK:
        print(port, json.dumps(what), flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.readings = []

    def finish(self):
        try:
            super().finish()
        except OSError:
            pass
        say(self.client_address[1], self.readings)

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.read
        raise AttributeError(name)

    def read(self):
        body = self.body()
        if body is None:
            self.close_connection = True
            return
        self.readings.append([self.command, self.path, body.decode("latin-1")])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def body(self):
        """The body, or None if it did not come whole."""
        if "chunked" in (self.headers["Transfer-Encoding"] or "").lower():
            return self.chunks()
        length = int(self.headers["Content-Length"] or 0)
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def chunks(self):
        body = b""
        while True:
            line = self.rfile.readline()
            if not line:
                return None
            size = int(line.split(b";")[0], 16)
            piece = self.rfile.read(size)
            if len(piece) < size:
                return None
            if size:
                body += piece
                self.rfile.readline()
                continue
            while line.strip():
                line = self.rfile.readline()
            # The line of the last chunk is not empty; trailers end with one that is.
            return body if line else None

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
say(0, server.server_address[1])
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
