"""Knocks at a port of SMTP again and again, as long as a file is there, and counts who is not greeted: ADDRESS PORT FILE.

Exits 1 when somebody was refused, broken off or kept waiting for more than 20 seconds.
"""

import os
import socket
import sys
import time

address, port, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
knocks, failed, longest = 0, [], 0.0
open(file, "w").close()
while os.path.exists(file):
    began = time.monotonic()
    try:
        with socket.create_connection((address, port), timeout=20) as peer:
            greeting = peer.recv(512)
            if not greeting.startswith(b"220 "):
                failed.append(repr(greeting))
            peer.sendall(b"QUIT\r\n")
            peer.recv(512)
    except OSError as error:
        failed.append(str(error))
    knocks += 1
    longest = max(longest, time.monotonic() - began)
    time.sleep(0.01)
print(f"{knocks} connections, {len(failed)} not greeted {failed[:3]}, the longest wait {longest:.1f} s")
sys.exit(1 if failed or knocks < 10 else 0)
