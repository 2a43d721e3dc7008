//! Every number of the library: value, unit, range, why, source. Nowhere else stands a bare one.

use std::{
    ops::{Range, RangeInclusive},
    time::Duration,
};

/// Name lookup, TCP connect and TLS handshake together. A healthy server needs well under 2 s.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The next address of a name is tried when the one before did not answer in this time (RFC 8305
/// section 5 recommends 250 ms).
pub const CONNECT_ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried. Microsoft 365 has up to 8 of each family.
pub const CONNECT_ADDRESSES_MAX: usize = 24;
/// A name is looked up here for the egress policy alone when a proxy will look it up as well.
pub const PROXY_LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Names that only the proxy knows.
pub const PROXY_NAMES_MAX: usize = 256;
/// Status line and headers of the answer to CONNECT.
pub const PROXY_HEAD_MAX: usize = 16 * 1024;
/// Which address of an HTTPS server answers is found out anew after this.
pub const ANSWERING_KEPT: Duration = Duration::from_secs(600);
/// Read buffer between the socket and TLS, bytes: several records of 16 KB in one system call.
pub const TLS_READ_BUFFER: usize = 128 * 1024;
/// Longest silence on an open connection. Dovecot's failed-login penalty alone reaches 15 s.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// One HTTP request to an authorization server, body included.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);
/// Read at once of such an answer, and the room its body begins with, bytes: one TLS record's share, all of most answers.
pub const HTTP_CHUNK: usize = 8 * 1024;
/// Stack of the thread on which a name is looked up, bytes: resolvers keep their buffers below 64 KiB.
pub const RESOLVER_STACK: usize = 256 * 1024;
/// A mail server that was asked for messages and sends not a byte for this long has stopped: another connection is
/// opened. Not known how long slow storage keeps a real server silent; shorter than READ_TIMEOUT, so that a call with
/// the default deadline still reads over the new one.
pub const READ_SILENCE: Duration = Duration::from_secs(20);
/// Body of one answer of an authorization server, bytes. Real ones stay under 20 KB.
pub const HTTP_BODY_MAX: usize = 1 << 20;

/// Deadline of a hook call when the host names none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(120);
/// Longest deadline that a host may name. RFC 5321 4.5.3.2 asks for up to 10 minutes after the final dot.
pub const DEADLINE_MAX: Duration = Duration::from_secs(900);

/// A caller waits this much longer than the work of its call has, which knows better what it was
/// waiting for; less than the 100 ms that a call may be late. And the same within a call.
pub const CALLER_GRACE: Duration = Duration::from_millis(75);
pub const INNER_GRACE: Duration = Duration::from_millis(35);
/// A caller with its result waits this long for what follows (the host's watcher is called first).
pub const FOLLOW_UP_WAIT: Duration = Duration::from_millis(100);
/// How often a thread that waits for another one looks whether its call was cancelled.
pub const CANCEL_POLL: Duration = Duration::from_millis(40);

/// One IMAP response line without its literals, bytes. RFC 7162 section 4 asks clients for 8,192; FETCH lines of
/// real servers stay below 64 KiB.
pub const IMAP_LINE_MAX: usize = 256 * 1024;
/// Nesting of parentheses in one response. imap-proto recurses and overflows a 2 MiB stack at about 340.
pub const IMAP_DEPTH_MAX: usize = 40;
/// The same, counted without looking at quotes: a second line of defence should our idea of a quoted string and the
/// parser's ever differ. Well below what overflows a 2 MiB stack.
pub const IMAP_RAW_DEPTH_MAX: usize = 200;
/// Literals in one response.
pub const IMAP_LITERALS_MAX: usize = 64;
/// Responses to one command.
pub const IMAP_RESPONSES_MAX: usize = 200_000;
/// Everything that one command other than a body FETCH may answer, bytes. A listing of IMAP_RESPONSES_MAX lines fits.
pub const IMAP_COMMAND_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Read buffer of one IMAP connection, bytes.
pub const IMAP_BUFFER: usize = 256 * 1024;
/// Longest command line sent, bytes. Dovecot closes the connection above 8,192 without a word.
pub const IMAP_COMMAND_LINE_MAX: usize = 8_000;
/// Small messages are asked for together, until their sizes sum up to this many bytes or they are this many.
pub const IMAP_GROUP_BYTES: u64 = 1 << 20;
pub const IMAP_GROUP_UIDS: usize = 200;
/// Body commands on their way at once. At 20 ms round trip and 170 MB/s, 3.4 MB must be asked for ahead.
pub const IMAP_PIPELINE: usize = 6;
/// Messages that came before their turn are kept in memory up to this, bytes; then in spool files.
pub const IMAP_HELD_BYTES: usize = 4 * 1024 * 1024;
/// What a server writes in place of a message that it cannot give out, bytes. Exchange's has about 600.
pub const SUBSTITUTE_MAX: usize = 4 * 1024;
/// Entries of one listing.
pub const IMAP_LISTING_MAX: usize = 50_000;
/// UIDs asked for by one SEARCH: each takes up to 11 bytes of one line, which must stay below IMAP_LINE_MAX.
pub const IMAP_SEARCH_WINDOW: u32 = 20_000;
/// Ranges of settled UIDs that a cursor keeps before it closes gaps that the server no longer answers for.
pub const IMAP_CURSOR_RANGES: usize = 256;
/// After the server lost what a cursor stands for (another UIDVALIDITY, a forgotten delta link or sync state), mail is
/// listed again from this long before all was settled last, seconds: covers the time between two notes of that moment and
/// clocks that differ.
pub const RESYNC_MARGIN: i64 = 2 * 3600;
/// The same when the moment at which all was settled last lies in the future, seconds: the clock of this machine was wrong when
/// it was noted. What was settled meanwhile is known by its fingerprint.
pub const RESYNC_CLOCK: i64 = 7 * 24 * 3600;
/// The clocks of a mail server and of this machine differ by at most so many seconds; beyond that, tokens do not work either.
pub const CLOCKS_APART: i64 = 300;
/// Seconds between two notes that a folder had nothing new: each note is a durable write.
pub const NOTE_INTERVAL: i64 = 3_600;
/// Pages of changes that one listing reads; the rest is left to the next, so that a first walk through a large folder is
/// kept.
pub const FEED_PAGES_MAX: usize = 40;
/// Messages of a folder that may be listed and unsettled before the listing stops, and settled ones that are remembered
/// because the server may name them again, and the host settle them again: as many as one call can. Ids have about 150
/// characters, so a cursor stays below 1.5 MB.
pub const FEED_OPEN_MAX: usize = 3_000;
pub const FEED_SETTLED_MAX: usize = 5_000;
/// Fingerprints of settled messages that a cursor keeps for a move to another protocol: an hour of three messages a second,
/// 210 KB.
pub const FINGERPRINTS_MAX: usize = 10_000;
/// Requests of one mailbox at once: Graph takes four ("Throttling limits", Outlook service), and sends the rest away.
pub const GRAPH_PARALLEL: usize = 4;
/// Requests in one $batch ("JSON batching").
pub const GRAPH_BATCH: usize = 20;
/// Ids that one translateExchangeIds takes ("translateExchangeIds").
pub const GRAPH_TRANSLATE: usize = 1_000;
/// Messages in one page of a delta, which names only their ids and dates.
pub const GRAPH_PAGE: usize = 500;
/// Pages of folders that are looked through for a name: 10 folders to a page unless it takes `$top`; 1,000 folders and more
/// below one are not known.
pub const GRAPH_FOLDER_PAGES_MAX: usize = 100;
/// One page of ids, or another JSON answer, bytes. Pages of GRAPH_PAGE messages have about 300 KB.
pub const GRAPH_PAGE_BYTES_MAX: usize = 8 << 20;
/// An id, a link and an error code of Graph's, characters. Real ones have 150, 2,000 and 40.
pub const GRAPH_ID_MAX: usize = 1_024;
pub const GRAPH_LINK_MAX: usize = 64 * 1024;
pub const GRAPH_CODE_MAX: usize = 100;
/// One request with its body: the largest message at 500 KB/s.
pub const GRAPH_TIMEOUT: Duration = Duration::from_secs(420);
/// An opened Graph mailbox sends further messages for this long: its token was given out with more than TOKEN_EARLY left.
pub const GRAPH_IDLE_KEEP: Duration = Duration::from_secs(60);
/// Largest message that Graph takes as MIME, bytes: a request may have 4 MB, and base64 makes 4 bytes of 3.
pub const GRAPH_MIME_MAX: usize = 3_000_000;
/// Largest message that Exchange Online takes when it comes in parts, bytes ("Attach large files to Outlook messages": 150
/// MB); one JSON request ("4 MB"); and one piece of an attachment, below 4 MB and a multiple of 320 KiB.
pub const GRAPH_MESSAGE_MAX: u64 = 150_000_000;
pub const GRAPH_REQUEST_MAX: usize = 4_000_000;
pub const GRAPH_PIECE: usize = 10 * 320 * 1024;
/// One attachment is posted in one request of up to so many bytes (public measurements put the limit at 4 MiB, msgraph-sdk-java
/// PR 52), of which its JSON takes what is known and this for the rest.
pub const GRAPH_POST_MAX: usize = 4 << 20;
pub const GRAPH_POST_ROOM: usize = 100;
/// Sizes of attachments that may go either way, bytes: sessions were seen to begin at 2 MiB, and 3 MB may be 3 MiB.
pub const GRAPH_GAP: Range<usize> = 2 << 20..3 << 20;
/// X- fields that one message may name as internetMessageHeaders.
pub const GRAPH_HEADERS_MAX: usize = 5;
/// Requests to EWS of one mailbox at once: well below the ten that Microsoft advises ("EWS throttling in Exchange").
pub const EWS_PARALLEL: usize = 4;
/// Changes that one SyncFolderItems asks for: the most that it gives ("MaxChangesReturned").
pub const EWS_CHANGES: usize = 512;
/// Messages that one GetItem asks for ("EWS best practices: at most 10 items per batch"), and items that one request settles:
/// a batch has a minute.
pub const EWS_BATCH: usize = 10;
pub const EWS_SETTLE_BATCH: usize = 50;
/// One answer without its MIME, bytes; elements and their attributes in it; how deep they may be nested. An answer with
/// EWS_CHANGES has 300 KB, 7,000 nodes and a depth of 8.
pub const EWS_ANSWER_MAX: usize = 8 << 20;
pub const EWS_NODES_MAX: u32 = 400_000;
pub const EWS_DEPTH_MAX: usize = 64;
/// One tag with its attributes, bytes: an id and a change key have 300.
pub const EWS_TAG_MAX: usize = 16 << 10;
/// What a request that sends a message takes besides its base64, bytes: envelope, names, two addresses.
pub const EWS_REQUEST_ROOM: usize = 4 << 10;
/// Base64 that is decoded at once, bytes.
pub const EWS_PIECE: usize = 48 << 10;
/// A SyncState, an id or change key, and a ResponseCode, characters. Real ones have 10,000, 200 and 60.
pub const EWS_STATE_MAX: usize = 1 << 20;
pub const EWS_ID_MAX: usize = 1_024;
pub const EWS_CODE_MAX: usize = 100;
/// One request with its body: the largest message at 500 KB/s.
pub const EWS_TIMEOUT: Duration = Duration::from_secs(420);
/// Bytes at the beginning of a message in which one of the usual header fields must stand. Headers of real mail have 2 to 60
/// KB, and its trace fields come first.
pub const HEADER_LOOK: usize = 64 << 10;
/// Copies of one Message-ID that are counted in a sent folder: one to each of so many recipients is more than a helpdesk sends.
pub const SENT_COPIES_MAX: usize = 1_000;
/// An opened mailbox sends further messages for this long: its token was given out with more than TOKEN_EARLY left.
pub const EWS_IDLE_KEEP: Duration = Duration::from_secs(60);
/// A closing connection tries to say LOGOUT for this long.
pub const LOGOUT_TIMEOUT: Duration = Duration::from_millis(500);
/// Room that a message in memory begins with, bytes; more only as bytes come, never because they were announced.
pub const SPOOL_MEMORY_FIRST: usize = 64 * 1024;
/// With more unsettled messages than this, their dates are not asked for to find out since when all is settled.
pub const IMAP_NOTE_UIDS: usize = 5_000;
/// A literal larger than this goes to a spool file instead of memory, bytes.
pub const SPOOL_THRESHOLD: usize = 1 << 20;
/// A size that makes a message travel alone, whatever it has: not one that a server listed.
pub const READ_ALONE: u64 = SPOOL_THRESHOLD as u64 + 1;
/// Largest message accepted, bytes. Exchange Online stops at 150 MB.
pub const MESSAGE_MAX: u64 = 200 * 1024 * 1024;

/// Messages in one batch when the host names no number, and the most it may ask for.
pub const BATCH_MESSAGES_DEFAULT: usize = 500;
pub const BATCH_MESSAGES_MAX: usize = 5_000;
/// Raw bytes in one batch when the host names none, and the most it may ask for. One message larger than this
/// travels alone.
pub const BATCH_BYTES_DEFAULT: u64 = 8 * 1024 * 1024;
pub const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of messages that are read before the thread that works on them is woken. A quarter of a megabyte comes in
/// 2 ms over a fast line and keeps that thread busy for half of a millisecond.
pub const READ_ANNOUNCE_BYTES: u64 = 256 * 1024;

/// Stack of the threads on which foreign parsers run: room for IMAP_DEPTH_MAX with a factor of thirty.
pub const WORKER_STACK: usize = 8 * 1024 * 1024;

/// An access token is renewed when less than this is left of it. Long enough for a clock a minute off and a slow login.
pub const TOKEN_EARLY: Duration = Duration::from_secs(120);
/// A mailbox that is fetched at intervals renews when less than the interval and this is left: the refresh token of some
/// servers ends with the access token (Canaille), and the next call would come too late.
pub const TOKEN_EARLY_MARGIN: Duration = Duration::from_secs(60);
/// Lifetime of a consent state, from `start` to `complete` (RFC 9700 asks for short-lived, single-use).
pub const CONSENT_LIFETIME: Duration = Duration::from_secs(600);
/// Never before this part of its life is left (1/n): at most 1.1 refreshes per lifetime, of a sandbox's one-minute token
/// too.
pub const TOKEN_EARLY_PART: i64 = 11;
/// Lifetime of a signed assertion, seconds (RFC 7523 section 3: short; Google takes up to an hour, Microsoft recommends
/// five to ten minutes).
pub const ASSERTION_LIFETIME: i64 = 300;
/// Seconds between two polls for a device code when the server names none (RFC 8628 3.2), and the most it may ask for.
pub const DEVICE_INTERVAL_DEFAULT: u64 = 5;
pub const DEVICE_INTERVAL_MAX: u64 = 120;
/// Seconds added when the server says slow_down (RFC 8628 3.5).
pub const DEVICE_SLOW_DOWN: u64 = 5;
/// Longest lifetime of a device code believed, seconds. Microsoft and Google give 15 and 30 minutes.
pub const DEVICE_LIFETIME_MAX: u64 = 3_600;
/// A user code, characters. Real ones have 8 to 12.
pub const USER_CODE_MAX: usize = 64;
/// Longest lifetime believed, seconds. Fastmail and others issue days; a year and more is a unit mistake.
pub const TOKEN_LIFETIME_MAX: i64 = 366 * 86_400;
/// One token, bytes. Microsoft's JWTs reach 4 KB with many groups.
pub const TOKEN_MAX: usize = 64 * 1024;
/// A refresh in progress keeps other processes out this long, so that one that was killed is made up for within 30 s.
pub const REFRESH_LEASE: Duration = Duration::from_secs(25);
/// The token request of a refresh is over when this has passed since before the lease was written: five seconds less
/// than the lease, for the write that follows and for clocks of nodes that differ.
pub const REFRESH_TIMEOUT: Duration = Duration::from_secs(20);
/// How often what another process or call has under way is looked at: at first, doubling up to the most.
pub const PEER_POLL_FIRST: Duration = Duration::from_millis(5);
pub const PEER_POLL: Duration = Duration::from_millis(200);
/// So many refusals of a refresh in a row, over so many seconds, that do not say why mean that the sign-in has ended: a
/// proxy's bad minute is over by then.
pub const REFRESH_DOUBTED: u32 = 3;
pub const REFRESH_DOUBTED_FOR: i64 = 600;
/// Pause after a first failed refresh; doubles with each further one, less up to half by chance.
pub const REFRESH_PAUSE_FIRST: Duration = Duration::from_secs(2);
pub const REFRESH_PAUSE_MAX: Duration = Duration::from_secs(300);
/// Refreshes in one hour that only a mail server's refusal asked for; beyond, its refusal stands.
pub const REFRESH_FORCED_PER_HOUR: usize = 6;
/// Seconds ahead that the end of a consent, refresh token, client secret or client certificate is warned of: two weeks
/// cover a holiday of the one person who can renew it.
pub const EXPIRY_WARNING: i64 = 14 * 86_400;
/// Calls in a row that fail for reasons that waiting may cure before a mailbox counts as degraded: one lost connection in
/// a night calls nobody.
pub const HEALTH_FAILURES: u32 = 3;
/// Seconds after which the health of a mailbox is looked at anew although its calls succeed: the end of a secret comes
/// near by itself.
pub const HEALTH_INTERVAL: i64 = 60;
/// Looking at the sign-in after a call waits this long for the store.
pub const HEALTH_LOOK: Duration = Duration::from_millis(500);
/// How long a mailbox counts as backing off when the server that throttles it names no wait.
pub const HEALTH_BACK_OFF: Duration = Duration::from_secs(60);
/// Longest Retry-After believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// An authorization server's metadata is asked for again after this many seconds, and after a failure.
pub const DISCOVERY_LIFETIME: i64 = 86_400;
pub const DISCOVERY_RETRY: i64 = 300;
/// Metadata and userinfo may take this long: both are helpful, neither is needed, and a code waits for its exchange.
pub const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Clocks may differ by this many seconds when the expiry of an ID token is checked.
pub const ID_TOKEN_SKEW: i64 = 300;
/// Names of one person that are looked at; real accounts have a dozen aliases.
pub const IDENTITY_NAMES_MAX: usize = 64;
/// The redirect URL that the host hands in, bytes. Microsoft's codes reach 2 KB.
pub const REDIRECT_MAX: usize = 16 * 1024;
/// A provider's own words in an error, characters.
pub const PROVIDER_TEXT_MAX: usize = 600;

/// Longest wait for another process that is writing to the store. A write takes milliseconds; a disk that is busy
/// with something else may take a second.
pub const STORE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A store that went back to an earlier state is told as degraded for this long, seconds.
pub const STORE_BACK_TOLD: i64 = 3_600;
/// Records of which a process remembers what it wrote, to notice that they went back; and how long
/// it takes a claim that is gone for lost rather than expired, seconds.
pub const STORE_REMEMBERED: usize = 20_000;
pub const STORE_CLAIM_LOST: Duration = Duration::from_secs(86_400);
/// Longest key file that is read, bytes: base64 or hex of the key with some white space around it.
pub const STORE_KEY_TEXT_MAX: u64 = 1024;
/// What a grant's record takes besides its tokens, bytes: room for all of it, so that growing leaves no copy behind.
pub const STORE_GRANT_ROOM: usize = 8 * 1024;
/// Connections to a PostgreSQL store from one process. An operation takes milliseconds, and there are few.
pub const STORE_CONNECTIONS: usize = 4;
/// One operation of a PostgreSQL store, its connection included.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// The clock of a PostgreSQL server is looked at anew after this, and which server it is.
pub const STORE_CLOCK_KEPT: Duration = Duration::from_secs(60);
/// Of it, name lookup, TCP connect, TLS handshake and login.
pub const STORE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A consent that nobody completed is deleted from the store when it was written this many seconds ago, long after it
/// has expired.
pub const CONSENT_KEPT: i64 = 86_400;
/// One record of the store, bytes. Grants stay below 20 KB; a cursor lists settled UIDs and may reach 1 MiB.
pub const STORE_RECORD_MAX: usize = 8 << 20;

/// Recipients that one sentence about a refusal names.
pub const RECIPIENTS_NAMED_MAX: usize = 5;
/// One line of an SMTP reply, bytes (RFC 5321 4.5.3.1.5 says 512; real servers send longer texts).
pub const SMTP_LINE_MAX: usize = 8 * 1024;
/// Read at once of SMTP replies, bytes: a whole pipelined group of them.
pub const SMTP_READ_CHUNK: usize = 4 * 1024;
/// Lines of one SMTP reply.
pub const SMTP_LINES_MAX: usize = 256;
/// SASL initial response goes into the AUTH line only when the whole line stays within this (RFC 4954 section 4: 512
/// octets; Postfix cuts command lines at 2,048).
pub const SMTP_COMMAND_LINE_MAX: usize = 512;
/// Wait for the answer to the final dot (RFC 5321 4.5.3.2.6).
pub const SMTP_FINAL_TIMEOUT: Duration = Duration::from_secs(600);
/// Commands sent ahead of their replies where PIPELINING is offered: their replies stay far below a socket buffer, so
/// that neither side can wait for the other (RFC 2920 section 3.1).
pub const SMTP_PIPELINE_MAX: usize = 100;
/// Content is handed to TLS in pieces of this many bytes: most mails with their final dot fit into one.
pub const SMTP_WRITE_CHUNK: usize = 64 * 1024;
/// What a polite goodbye (QUIT) or a clean-up (RSET) may cost when the server is slow.
pub const SMTP_GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Longest wait that is believed when a server names one in the text of a 4xx reply.
pub const SMTP_RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// Wait after a throttling reply that names none: Exchange Online counts messages by the minute.
pub const SMTP_THROTTLE_WAIT: Duration = Duration::from_secs(60);
/// An authenticated SMTP connection is kept open for the next message this long.
pub const SMTP_IDLE_KEEP: Duration = Duration::from_secs(60);

/// Nesting of multiparts below which parts are looked into; a deeper one counts as one opaque part. Real mail stays
/// below 10.
pub const MIME_DEPTH_MAX: usize = 100;
/// Parts of one message that are looked at; what follows stays in the raw bytes only.
pub const MIME_PARTS_MAX: usize = 20_000;
/// Content-Type and similar fields of all parts together, bytes. A real part has about 200.
pub const MIME_PARTS_FIELDS_MAX: usize = 8 << 20;
/// Fields of one header section that are read, of those that facts are made of.
pub const MIME_FIELDS_MAX: usize = 1_000;
/// One header field that is read, bytes; the rest of a longer one is left out of the facts.
pub const MIME_FIELD_MAX: usize = 64 * 1024;
/// The same for fields with parameters (Content-Type): mail-parser 0.11 takes quadratic time in their number.
pub const MIME_PARAMETERS_MAX: usize = 8 * 1024;
/// Addresses per field and message ids in the facts of one message. Exchange Online stops at 1,000 recipients.
pub const FACT_ADDRESSES_MAX: usize = 5_000;
pub const FACT_IDS_MAX: usize = 1_000;
/// Decoded text or HTML put into the facts of one message, bytes; the raw bytes have all of it.
pub const FACT_TEXT_MAX: usize = 1 << 20;
/// Attachments listed in the facts of one message.
pub const FACT_ATTACHMENTS_MAX: usize = 10_000;

/// Line of a message without its CRLF, bytes (RFC 5322 2.1.1).
pub const MESSAGE_LINE_MAX: usize = 998;
/// Message ids kept in References: the first, which names the thread, and the latest. Longer chains only grow.
pub const REFERENCES_MAX: usize = 100;
/// One message id, bytes. Real ones stay under 300; one line must hold it.
pub const MESSAGE_ID_MAX: usize = 900;
/// Display name of an address, file name of an attachment, characters; longer ones are cut.
pub const NAME_MAX: usize = 250;
/// Local part and whole of an address, bytes (RFC 5321 4.5.3.1.1, 4.5.3.1.3).
pub const LOCAL_PART_MAX: usize = 64;
pub const ADDRESS_MAX: usize = 254;

/// Largest JSON document a host may hand in, bytes (attachments of a composed message travel inside it as base64).
pub const REQUEST_MAX: usize = 256 * 1024 * 1024;

/// Characters of the label that a host gives a mailbox.
pub const LABEL_MAX: usize = 200;

/// Reading ahead of the host ends after this; the rest is asked for by the next `fetch_batch`.
pub const READ_AHEAD_MAX: Duration = Duration::from_secs(900);
/// `close` waits this long for what is under way, then leaves it behind to end by its own deadline.
pub const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Failures after which a message is put aside: once may be the network, twice bad luck.
pub const QUARANTINE_TRIES: u32 = 3;
/// A message that cannot be read for a reason that may be the server's is not put aside before this, counted from its first
/// failure, seconds: a part of a store that is away is mostly back within half an hour, and meanwhile it blocks nobody.
pub const QUARANTINE_PATIENCE: i64 = 30 * 60;
/// A round ends when this many messages in a row could not be read: then it is the server.
pub const UNREAD_IN_A_ROW: usize = 3;
/// Messages that a handle remembers as copied and not removed yet: as many as one call settles.
pub const COPIED_MAX: usize = 5_000;
/// Ranges of UIDs that a cursor notes as copied to the target of a move; neighbours are one range.
pub const IMAP_COPIED_RANGES: usize = 1_000;
/// Messages that are remembered as left out of a server's answer.
pub const LEFT_OUT_MAX: usize = 10_000;
/// After so many messages in a row to which the server refuses an action it is not asked about the rest of the call.
pub const SETTLE_REFUSED_IN_A_ROW: usize = 3;
/// Messages that are remembered as trouble, to be read after the others.
pub const TROUBLED_MAX: usize = 200;
/// Messages of one folder that are counted or put aside at once: with 600 bytes of reason each, one record of the store
/// holds them.
pub const QUARANTINE_MAX: usize = 2_000;
/// Memory that the large messages of all mailboxes of a plugin may take at once, MiB, when the configuration says nothing,
/// and the least it may say: two of the largest messages there are.
pub const MEMORY_MB_DEFAULT: u64 = 512;
pub const MEMORY_MB_MIN: u64 = 16;
pub const MEMORY_MB: u64 = 1 << 20;
/// What became of a message under an idempotency key is forgotten so many days after it was written, when the configuration
/// says nothing: a year. A key that comes back later sends again.
pub const IDEMPOTENCY_DAYS: u16 = 365;
/// The count of automatic mails to one correspondent likewise: long after [`BRAKE_WINDOW`].
pub const AUTOMATIC_MAIL_DAYS: u16 = 90;
/// What the configuration may say of both: longer than any host tries again, and ten years.
pub const RECORD_DAYS: RangeInclusive<u16> = 7..=3_650;
pub const DAY: i64 = 86_400;
/// Old records of one kind are looked for this often by each process, seconds, and so many are deleted at once: a few
/// milliseconds, and faster than messages come.
pub const EXPIRY_INTERVAL: i64 = 600;
pub const EXPIRY_BATCH: u32 = 200;
/// Sendings of one Message-ID that are told apart by their keys.
pub const OFFERS_MAX: usize = 1_000;
/// Counting the copies of a Message-ID in the sent folder before it is offered.
pub const SENT_COUNT_TIMEOUT: Duration = Duration::from_secs(20);
/// A record that several may make at once is tried again this often.
pub const CLAIM_ATTEMPTS: usize = 3;
/// Whoever began to send under an idempotency key counts as dead this long after the deadline of its call: the write of the
/// outcome comes after it.
pub const CLAIM_MARGIN: Duration = Duration::from_secs(15);
/// A mailbox stays with its node this long after the deadline of a call: time for the host to file a batch and settle it.
/// A node that died is made up for after it.
pub const MAILBOX_LEASE: Duration = Duration::from_secs(30);
/// A record that others change at the same moment is read, changed and written anew this often: each time one of them has
/// got on.
pub const SWAP_ATTEMPTS: usize = 20;
/// Calls that may wait for a handle that is busy.
pub const CALLS_QUEUED_MAX: usize = 64;
/// One settings document, bytes. The largest that passes all bounds of its fields stays under half of it.
pub const SETTINGS_MAX: usize = 256 * 1024;
/// Minutes between two fetches: what the form offers, from one minute to one day.
pub const FETCH_INTERVAL_MINUTES_MIN: u64 = 1;
pub const FETCH_INTERVAL_MINUTES_MAX: u64 = 24 * 60;
/// A one-line text of the settings, characters.
pub const SETTING_TEXT_MAX: usize = 320;
/// A URL of the settings, characters. Browsers and servers agree on about 2,000.
pub const SETTING_URL_MAX: usize = 2_000;
/// The scope field, characters: a dozen URLs.
pub const SETTING_SCOPE_MAX: usize = 2_000;
/// Automatic mails to one correspondent within [`BRAKE_WINDOW`] when the settings name no number, and the most they may
/// name: the answer to a new request, and one more. RFC 3834 section 2 asks for restraint without a number.
pub const BRAKE_MAILS_DEFAULT: u32 = 2;
pub const AUTOMATIC_MAILS_MAX: u64 = 1_000;
/// Within which automatic mails to one correspondent are counted, seconds from the first of them. Longer than the longest
/// fetch interval, so that a loop that turns once a day ends too.
pub const BRAKE_WINDOW: i64 = 86_400;
/// Seconds within which messages are counted: providers name their limits by the minute.
pub const RATE_WINDOW: i64 = 60;
/// The most messages per minute that the settings may name, and what Exchange Online takes from a mailbox ("Exchange
/// Online limits", message rate limit: 30 per minute).
pub const MESSAGES_PER_MINUTE_MAX: u64 = 10_000;
pub const MICROSOFT_MESSAGES_PER_MINUTE: u32 = 30;
/// Entries of a list in the settings.
pub const SETTING_LIST_MAX: usize = 100;
/// A client secret, characters; also the bound of the file that holds one, bytes.
pub const SETTING_SECRET_MAX: usize = 4_096;
/// A PEM certificate with its chain, a PEM key, or Google's JSON key, characters; also the bound of the file that holds
/// one, bytes. A chain of four RSA-4096 certificates has 10 KB.
pub const SETTING_DOCUMENT_MAX: usize = 32 * 1024;
/// Additional parameters of the authorize URL.
pub const SETTING_PARAMETERS_MAX: usize = 20;

/// A certificate that ends within this many days is warned of. Automatic renewal acts 30 days ahead.
pub const CERTIFICATE_EXPIRY_WARNING_DAYS: i64 = 14;
/// Subject or issuer as a diagnosis shows it, characters; and how many of its names.
pub const CERTIFICATE_NAME_MAX: usize = 200;
pub const CERTIFICATE_NAMES_SHOWN: usize = 20;
/// Clocks that differ by more seconds than this are warned of: tokens are renewed two minutes before their end.
pub const CLOCK_SKEW_WARNING: i64 = 60;
/// The sample of a diagnosis is read up to this size, bytes; of a larger message only the size is told.
pub const SAMPLE_MAX: u64 = 25 * 1024 * 1024;
/// A subject as a diagnosis shows it, characters.
pub const SAMPLE_SUBJECT_MAX: usize = 60;
/// Idempotency keys that a process remembers because the store failed when they were to be given back.
pub const CLAIMS_UNRELEASED_MAX: usize = 10_000;
/// Bytes at the beginning of a text in which the words of a bounce are looked for.
pub const NOTICE_LOOK: usize = 2_000;
/// Bytes at the beginning of an HTML body in which its charset is looked for (HTML Standard, 13.2.3.2).
pub const HTML_CHARSET_LOOK: usize = 1_024;
/// One tag of an HTML body, bytes; mailers write inline images of more than that, whose tags are passed over.
pub const HTML_TAG_MAX: usize = 16 * 1_024;
/// Recipients of one delivery report that are listed.
pub const REPORT_RECIPIENTS_MAX: usize = 1_000;
/// So many letters and digits in a row may be a code or a state, which have 43.
pub const SECRET_RUN: usize = 24;
