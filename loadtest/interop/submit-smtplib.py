"""Submits one message by Python's smtplib: HOST PORT starttls|tls CA USER PASSWORD FROM TO."""

import smtplib
import ssl
import sys
from email.message import EmailMessage

host, port, security, ca, user, password, sender, recipient = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
message = EmailMessage()
message["From"] = sender
message["To"] = recipient
message["Subject"] = "Grüße von smtplib"
message.set_content("Hello from smtplib.\n.\nA line with only a dot above, and ümläuts.\n")
if security == "tls":
    client = smtplib.SMTP_SSL(host, int(port), context=context, timeout=30)
else:
    client = smtplib.SMTP(host, int(port), timeout=30)
    client.starttls(context=context)
with client:
    client.login(user, password)
    refused = client.send_message(message)
sys.exit(1 if refused else 0)
