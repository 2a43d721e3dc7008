// The peer of the sending benchmark: nodemailer, one pooled connection, SMTPS with XOAUTH2, generated messages.
//
//   node send.mjs CONFIG.json
//   {"host","port","ca_file","user","token","to","folder","messages"}   folder: one file per message, sent in order,
//                                                                       from the beginning again when they run out
// Prints one JSON line: {"messages","bytes","seconds","cpu_seconds","peak_mb"}. The clock starts with the first
// message already sent: connecting and logging in are not part of it, as they are not for the other side.
import { readFileSync, readdirSync } from 'node:fs';
import nodemailer from 'nodemailer';

const config = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const files = readdirSync(config.folder).sort();
const raws = files.map((file) => readFileSync(`${config.folder}/${file}`));

const transport = nodemailer.createTransport({
  host: config.host,
  port: config.port,
  secure: true,
  pool: true,
  maxConnections: 1,
  maxMessages: Infinity,
  tls: { ca: readFileSync(config.ca_file) },
  auth: { type: 'OAuth2', user: config.user, accessToken: config.token },
});
const send = (number) =>
  transport.sendMail({ envelope: { from: config.user, to: config.to }, raw: raws[number % raws.length] });

await send(0);
const start = process.hrtime.bigint();
const cpu = process.cpuUsage();
let bytes = 0;
let next = 0;
// Two in hand: the pool never waits for us between two messages.
const worker = async () => {
  while (next < config.messages) {
    const number = next++;
    await send(number);
    bytes += raws[number % raws.length].length;
  }
};
await Promise.all([worker(), worker()]);
const seconds = Number(process.hrtime.bigint() - start) / 1e9;
const used = process.cpuUsage(cpu);
transport.close();
console.log(
  JSON.stringify({
    messages: config.messages,
    bytes,
    seconds,
    cpu_seconds: (used.user + used.system) / 1e6,
    peak_mb: process.resourceUsage().maxRSS / 1024,
  }),
);
