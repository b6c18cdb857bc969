"""A receiving host by aiosmtpd: refuses one mailbox, defers another, and writes what comes to a file each.

Usage: receive-aiosmtpd.py ADDRESS PORT CERTIFICATE KEY FOLDER
"""

import os
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP


class Handler:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("later@"):
            return "451 4.7.1 unusual rate of mail, try again later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server, session, envelope):
        Handler.count += 1
        name = os.path.join(folder, str(Handler.count))
        with open(name + ".part", "wb") as file:
            file.write(f"Received: by aiosmtpd with {'ESMTPS' if session.ssl else 'ESMTP'}\r\n".encode())
            file.write(envelope.original_content)
        os.rename(name + ".part", name)
        return "250 2.0.0 ok"


class Server(Controller):
    def factory(self):
        return SMTP(self.handler, hostname="mx.aiosmtpd.test", tls_context=context, enable_SMTPUTF8=True, data_size_limit=1 << 20)


address, port, certificate, key, folder = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
Server(Handler(), hostname=address, port=int(port)).start()
signal.sigwait([signal.SIGTERM, signal.SIGINT])
os._exit(0)
