"""Verifies every DKIM signature of the message on standard input with dkimpy, its keys looked up by DNS: NAMESERVER PORT.

Prints one line a signature: ok or FAILED, algorithm, domain, selector, and why it failed.
"""

import re
import sys

import dkim
import dns.resolver

resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = [sys.argv[1]], int(sys.argv[2])


def txt(name, timeout=5):
    if isinstance(name, bytes):
        name = name.decode("ascii")
    try:
        answer = resolver.resolve(name, "TXT", lifetime=timeout)
    except dns.resolver.NXDOMAIN:
        return None
    return b"".join(answer[0].strings)


# A maildir holds LF; a message has CRLF.
message = re.sub(rb"\r?\n", b"\r\n", sys.stdin.buffer.read())
signatures = [value for name, value in dkim.rfc822_parse(message)[0] if name.lower() == b"dkim-signature"]
for index, value in enumerate(signatures):
    tags = dkim.util.parse_tag_value(value)
    what = [tags[tag].decode().strip() for tag in (b"a", b"d", b"s")]
    try:
        good, why = dkim.DKIM(message).verify(idx=index, dnsfunc=txt), "the signature does not match"
    except Exception as error:  # A verifier that gives up has not verified.
        good, why = False, f"{type(error).__name__}: {error}"
    print("ok" if good else "FAILED", *what, "" if good else why)
