"""Reads a message on standard input with Python's email package and dkimpy, and prints what they make of it as JSON.

Arguments: pairs of a DNS name and the text of its TXT record, where the keys of signatures are looked up.
"""

import base64
import email
import email.policy
import json
import sys

import dkim

records = dict(zip((name.rstrip(".") for name in sys.argv[1::2]), sys.argv[2::2]))


def txt(name, timeout=5):
    record = records.get(name.decode().rstrip("."))
    return record.encode() if record else None


def signatures(data):
    verifier = dkim.DKIM(data)
    count = sum(1 for name, _ in verifier.headers if name.lower() == b"dkim-signature")
    return [verifier.verify(idx=index, dnsfunc=txt) for index in range(count)]


def body(message, kind):
    part = message.get_body(preferencelist=(kind,))
    return part.get_content().replace("\r\n", "\n") if part else None


data = sys.stdin.buffer.read()
message = email.message_from_bytes(data, policy=email.policy.SMTP)
files = {
    part.get_filename(): base64.b64encode(part.get_payload(decode=True)).decode()
    for part in message.walk()
    if part.get_filename()
}
defects = [repr(defect) for part in message.walk() for defect in part.defects]
print(json.dumps({
    "signatures": signatures(data),
    "subject": message["Subject"],
    "text": body(message, "plain"),
    "html": body(message, "html"),
    "files": files,
    "defects": defects,
}))
