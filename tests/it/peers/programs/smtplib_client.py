"""smtplib_client.py HOST PORT SENDER RECIPIENT... [--starttls CA | --implicit CA] [--login USER [--mechanism NAME]] [--option MAIL_PARAMETER]...

Sends the message on stdin; the secret of USER is in the environment variable SECRET. Prints the reply to the message. Exits with 1 and the reply where the server refuses.
"""

import argparse
import os
import smtplib
import ssl
import sys


class Client(smtplib.SMTP):
    def data(self, msg):
        code, reply = smtplib.SMTP.data(self, msg)
        print(code, reply.decode())
        return code, reply


class TlsClient(smtplib.SMTP_SSL):
    data = Client.data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("sender")
    parser.add_argument("recipients", nargs="+")
    parser.add_argument("--starttls")
    parser.add_argument("--implicit")
    parser.add_argument("--login")
    parser.add_argument("--mechanism")
    parser.add_argument("--option", action="append", default=[])
    args = parser.parse_args()
    if args.implicit:
        context = ssl.create_default_context(cafile=args.implicit)
        connect = lambda: TlsClient(args.host, args.port, timeout=30, context=context)
    else:
        connect = lambda: Client(args.host, args.port, timeout=30)
    with connect() as client:
        if args.starttls:
            client.starttls(context=ssl.create_default_context(cafile=args.starttls))
        if args.login:
            secret = os.environ["SECRET"]
            if args.mechanism:
                client.ehlo_or_helo_if_needed()
                client.user, client.password = args.login, secret
                client.auth(args.mechanism, getattr(client, "auth_" + args.mechanism.lower()))
            else:
                client.login(args.login, secret)
        refused = client.sendmail(args.sender, args.recipients, sys.stdin.buffer.read(), mail_options=args.option)
    if refused:
        sys.exit(str(refused))


try:
    main()
except smtplib.SMTPException as error:
    sys.exit(repr(error))
