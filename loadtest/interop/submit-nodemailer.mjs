// Submits one message by nodemailer: URL FROM TO. Says the server's reply; the exit code tells.
import nodemailer from 'nodemailer';

const [url, from, to] = process.argv.slice(2);
const transport = nodemailer.createTransport(url);
const sent = await transport.sendMail({
  from,
  to,
  subject: 'Your code is 123-456',
  text: 'Hello from nodemailer.\n.\nA line with only a dot above.\n',
  html: '<p>Hello from <b>nodemailer</b>: grüß Gott</p>',
});
console.log(sent.response);
transport.close();
