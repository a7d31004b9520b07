"""mime_reader.py

Reads a message on stdin and prints each of its parts as a line of JSON: where it stands, its type, its charset, its file name,
and its content, decoded, one character an octet.
"""

import email
import email.policy
import json
import sys


def walk(part, path):
    if part.is_multipart():
        for number, inner in enumerate(part.get_payload()):
            walk(inner, path + [number])
        return
    content = part.get_payload(decode=True) or b""
    print(json.dumps({
        "path": path,
        "type": part.get_content_type(),
        "charset": part.get_content_charset(),
        "name": part.get_filename(),
        "content": content.decode("latin-1"),
    }))


walk(email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default), [])
