"""verify_dkim.py RECORDS MESSAGE...: what dkimpy says of each DKIM signature, a line of 1 and 0 for each message.

RECORDS is a JSON object of DNS names (without the last dot) and texts of TXT records.
"""

import json
import sys

import dkim

records = json.load(open(sys.argv[1], encoding="ascii"))


def lookup(name, timeout=5):
    return records.get(name.decode("ascii").rstrip("."), "").encode("ascii") or None


for path in sys.argv[2:]:
    with open(path, "rb") as file:
        message = file.read()
    count = sum(name.lower() == b"dkim-signature" for name, _ in dkim.rfc822_parse(message)[0])
    verdicts = []
    for index in range(count):
        try:
            verdicts.append(dkim.DKIM(message).verify(idx=index, dnsfunc=lookup))
        except dkim.DKIMException as error:
            print(f"{path}: signature {index}: {error}", file=sys.stderr)
            verdicts.append(False)
    print("".join("1" if good else "0" for good in verdicts))
