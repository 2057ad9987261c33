"""A server in OpenAI's protocol that answers as a function of the request tells it to."""

import http.server
import json
import threading


def completion(text="Euros.", finish="stop", **message):
    """A reply as the protocol has it, with further fields of the message."""
    said = {"role": "assistant", "content": text, **message}
    choice = {"index": 0, "finish_reason": finish, "message": said}
    return 200, {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


class Served:
    """Answers POST with `decide(body)`: a status and an object or a text; keeps the bodies. GET is `listing`, 404."""

    def __init__(self, decide, path="/v1/chat/completions"):
        self.bodies, self.listing, outer = [], 404, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def send(self, status, body):
                text = (body if isinstance(body, str) else json.dumps(body)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                self.send(outer.listing, {"detail": "Not Found"})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != path:
                    return self.send(404, {"detail": "Not Found"})
                outer.bodies.append(body)
                self.send(*decide(body))

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                """A client that has gone is no traceback of the tested command's."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}"
        self.url = f"{self.base}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        """Ends the server."""
        self.http.shutdown()
        self.http.server_close()
