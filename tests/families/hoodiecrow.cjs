// hoodiecrow-imap as a process: node hoodiecrow.cjs PORT USER PASSWORD
const hoodiecrow = require("hoodiecrow-imap");

const [port, user, password] = process.argv.slice(2);
const server = hoodiecrow({
  plugins: ["ID", "NAMESPACE", "UIDPLUS", "MOVE", "SPECIAL-USE", "UNSELECT", "ENABLE", "LITERALPLUS"],
  users: { [user]: { password } },
  storage: { INBOX: { messages: [] }, "": { separator: "/", folders: {} } },
});
server.listen(Number(port), "127.0.0.1");
