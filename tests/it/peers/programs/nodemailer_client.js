// nodemailer_client.js HOST PORT SENDER RECIPIENT ATTACHMENT MESSAGE [CA]: sends a file as an attachment.
//
// Writes the message as it was sent to the file MESSAGE, and prints the server's reply to it. With CA: only over STARTTLS.
"use strict";
const fs = require("node:fs");
const nodemailer = require("nodemailer");

const [host, port, sender, recipient, attachment, messageFile, ca] = process.argv.slice(2);

async function main() {
  const composed = await nodemailer.createTransport({ streamTransport: true, buffer: true, newline: "windows" }).sendMail({
    from: `"Größe, Ämter & Co." <${sender}>`,
    to: recipient,
    subject: "Anhänge — 5 MB",
    text: "Siehe Anhang.\r\n.\r\n..\r\nEnde\r\n",
    html: "<p>Siehe <b>Anhang</b>.</p>",
    attachments: [{ filename: "größe.bin", content: fs.readFileSync(attachment) }],
  });
  fs.writeFileSync(messageFile, composed.message);
  const transport = nodemailer.createTransport({
    host,
    port: Number(port),
    secure: false,
    requireTLS: ca !== undefined,
    ignoreTLS: ca === undefined,
    tls: ca === undefined ? {} : { ca: fs.readFileSync(ca) },
  });
  const sent = await transport.sendMail({ envelope: { from: sender, to: [recipient] }, raw: composed.message });
  console.log(sent.response);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
