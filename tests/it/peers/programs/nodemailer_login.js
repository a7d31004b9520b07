// nodemailer_login.js HOST PORT SENDER RECIPIENT CA SECURE USER [METHOD]: sends a small message after a login.
//
// The secret is in the environment variable SECRET. SECURE: "starttls" or "implicit". Prints the server's reply.
"use strict";
const fs = require("node:fs");
const nodemailer = require("nodemailer");

const [host, port, sender, recipient, ca, secure, user, method] = process.argv.slice(2);

const transport = nodemailer.createTransport({
  host,
  port: Number(port),
  secure: secure === "implicit",
  requireTLS: secure === "starttls",
  tls: { ca: fs.readFileSync(ca) },
  auth: { user, pass: process.env.SECRET },
  authMethod: method,
});

transport
  .sendMail({ from: sender, to: recipient, subject: "nodemailer", text: "hello" })
  .then((sent) => console.log(sent.response))
  .catch((error) => {
    console.error(error.response || error);
    process.exit(1);
  });
