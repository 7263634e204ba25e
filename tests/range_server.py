"""A server of the files of a folder that answers requests for ranges of bytes, as those that hold rasters do.

With a second argument it gives whole files alone.

A process of its own: GDAL keeps Python from running while it waits for an answer.
"""

import http.server
import re
import sys
from functools import partial
from pathlib import Path


class Ranges(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        file, asked = Path(self.translate_path(self.path)), re.match(r"bytes=(\d+)-(\d+)", self.headers["Range"] or "")
        if not file.is_file() or asked is None:
            super().do_GET()
            return
        data = file.read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *args: object) -> None:
        """Nothing."""


if __name__ == "__main__":
    handler = Ranges if len(sys.argv) == 2 else http.server.SimpleHTTPRequestHandler
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=sys.argv[1]))
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
