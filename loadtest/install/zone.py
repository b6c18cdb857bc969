"""Turns records as zone files and `tradewind member add` write them (standard input, one a line) into settings for dnsmasq."""

import re
import sys

print("no-hosts\nno-resolv\nno-daemon\nlisten-address=192.0.2.1\nbind-interfaces\nuser=root\nlocal-ttl=1\nlocal=/#/")
for line in sys.stdin:
    words = line.split(None, 2)
    if len(words) < 3:
        continue
    name, kind, value = words[0].rstrip("."), words[1], words[2].strip()
    if kind == "A":
        print(f"address=/{name}/{value}" if name.startswith("*") else f"host-record={name},{value}")
    elif kind == "PTR":
        print(f"ptr-record={name},{value.rstrip('.')}")
    elif kind == "MX":
        preference, host = value.split()
        print(f"mx-host={name},{host.rstrip('.')},{preference}")
    elif kind == "TXT":
        parts = re.findall(r'"([^"]*)"', value)
        # A string of a TXT record has at most 255 octets.
        parts = [part[at : at + 255] for part in parts for at in range(0, len(part), 255)]
        print(f"txt-record={name}," + ",".join('"' + part.replace(",", r"\,") + '"' for part in parts))
    else:
        sys.exit(f"records of type {kind} are not known here")
