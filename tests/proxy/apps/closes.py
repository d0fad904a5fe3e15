"""A server that closes each connection after its answer and does not say so; argv: the socket."""

import os
import socket
import sys
import threading

RELEASE = os.environ["SHIPIT_RELEASE"].encode()
NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def answer(pipe: socket.socket) -> None:
    with pipe:
        got = b""
        while b"\r\n\r\n" not in got:
            chunk = pipe.recv(65536)
            if not chunk:
                return
            got += chunk
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        while len(body) < length:
            body += pipe.recv(65536)
        if head.startswith(b"POST"):
            os.write(NOTES, body + b"\n")
        pipe.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(RELEASE), RELEASE))


with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen(128)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
