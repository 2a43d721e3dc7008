'use strict';
// A host in JavaScript: consent, fetch, settle, send.
//
//   node host.js WALK.json      {"library","plugin","incoming","outgoing","to"}
//
// Says one line per step and reads the redirect of the consent from standard input.

const fs = require('node:fs');
const readline = require('node:readline');
const { Library, OauthMailError } = require('./oauth_mail.js');

const say = (...words) => fs.writeSync(1, `${words.join(' ')}\n`);

async function main(path) {
  const walk = JSON.parse(fs.readFileSync(path, 'utf8'));
  const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const plugin = new Library(walk.library).plugin(walk.plugin);
  try {
    plugin.open({ incoming: {} });
  } catch (error) {
    if (!(error instanceof OauthMailError) || error.kind !== 'settings') throw error;
    say('refused', error.faults[0].pointer);
  }
  const inbox = plugin.open({ incoming: walk.incoming });
  const outbox = plugin.open({ outgoing: walk.outgoing });
  try {
    await inbox.fetchBatch();
  } catch (error) {
    if (error.kind !== 'consent_required') throw error;
    say('consent', (await inbox.authenticate({ action: 'start' })).authorize_url);
    const redirect = (await lines.next()).value.trim();
    say((await inbox.authenticate({ action: 'complete', redirect })).state);
  }
  const batch = await inbox.fetchBatch({ max_messages: 100 });
  const results = {};
  for (const message of batch) {
    const facts = message.facts;
    const sizes = facts.attachments.map(file => message.attachment(file.part_index).length);
    say('message', message.raw.length, facts.subject, ...sizes);
    results[message.key] = 'imported';
  }
  batch.close();
  say('settled', Object.keys(await inbox.settleBatch(results)).length);
  const sent = await outbox.sendMessage({ to: [walk.to], subject: 'From JavaScript', text: 'It works.\n' });
  say(sent.outcome);
  inbox.close();
  outbox.close();
  plugin.close();
  say('done');
}

main(process.argv[2]).then(() => process.exit(0), error => {
  console.error(error);
  process.exit(1);
});
