"""aiosmtpd_receiver.py HOST PORT [--utf8] [--certificate FILE --key FILE]: takes all mail.

Prints "listening", then each message as one line of JSON with its envelope; content has one character an octet.
"""

import argparse
import asyncio
import json
import ssl

from aiosmtpd.smtp import SMTP


class Keep:
    async def handle_DATA(self, server, session, envelope):
        print(json.dumps({
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "options": [option.upper() for option in envelope.mail_options],
            "tls": session.ssl is not None,
            "content": envelope.original_content.decode("latin-1"),
        }))
        return "250 2.0.0 kept"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--utf8", action="store_true")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    args = parser.parse_args()
    tls = None
    if args.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.certificate, args.key)

    def session():
        return SMTP(Keep(), hostname="mx.receiver.test", enable_SMTPUTF8=args.utf8, tls_context=tls,
                    require_starttls=tls is not None)

    server = await asyncio.get_running_loop().create_server(session, args.host, args.port)
    print("listening")
    await server.serve_forever()


asyncio.run(main())
