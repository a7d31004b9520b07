"""smtplib_client.py HOST PORT SENDER RECIPIENT... [--starttls CA] [--option MAIL_PARAMETER]...: sends the message on stdin.

Prints the reply to the message. Exits with 1 and the reply where the server refuses.
"""

import argparse
import smtplib
import ssl
import sys


class Client(smtplib.SMTP):
    def data(self, msg):
        code, reply = super().data(msg)
        print(code, reply.decode())
        return code, reply


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("sender")
    parser.add_argument("recipients", nargs="+")
    parser.add_argument("--starttls")
    parser.add_argument("--option", action="append", default=[])
    args = parser.parse_args()
    with Client(args.host, args.port, timeout=30) as client:
        if args.starttls:
            client.starttls(context=ssl.create_default_context(cafile=args.starttls))
        refused = client.sendmail(args.sender, args.recipients, sys.stdin.buffer.read(), mail_options=args.option)
    if refused:
        sys.exit(str(refused))


try:
    main()
except smtplib.SMTPException as error:
    sys.exit(repr(error))
