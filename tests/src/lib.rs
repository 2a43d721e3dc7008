//! Real servers as values: an authorization server, Dovecot and Postfix on ports of 127.0.0.1 that the system chose, under
//! an ordinary user, in one short temporary folder, with a certificate authority of their own. Dropping [`Servers`] ends
//! every process; they also end when the test process is killed. `tests/install.sh` installs what they need.
//!
//! | module | what |
//! |---|---|
//! | [`servers`] | [`Servers::start`]: all of it, and the settings documents that a person would type |
//! | [`idp`] | oidc-provider: clients, faults, revocation, counting requests |
//! | [`dovecot`], [`postfix`] | IMAPS, LMTP, SASL; submission and SMTPS |
//! | [`browser`] | signs in and consents like a person |
//! | [`relay`] | delay, cut and stall between client and server |
//! | [`fixture`] | a plugin with a store of its own, and mailboxes whose owners consented |
//! | [`fuzz`] | mutates inputs of every parser |
//! | [`mailbox`] | fetches and settles as a host does, and looks at the mailbox beside the library |
//! | [`postgres`], [`strict_idp`], [`race`] | PostgreSQL with pgbouncer; a token endpoint that forgives nothing; many who refresh at once |
//! | [`scripted_imap`] | an IMAP server that does on request what real ones do now and then |
//! | [`model`] | a random mailbox, host and server, and the account of every message |
//! | [`families`] | servers of other families, walked through a suite (`make test-servers`) |
//! | [`tls_server`] | what the scripted servers stand on |
//! | [`wayward_idp`], [`wayward_imap`] | a token endpoint that answers with any bytes, or none; an IMAP server with poison in its mail |
//! | [`mailgen`] | deterministic mail |
//! | [`wire`] | a TLS connection to speak raw protocol on |
//! | `sweep` | stops, failures, cuts and power losses at every step (feature `test-seam`) |
//! | [`soak`] | several hosts on one PostgreSQL store for a long time, killed and frozen again and again |
//! | [`built`] | what the build left: programs, and the library |
//! | [`sandboxed`] | mailboxes of the sandbox provider, as the forms describe them |
//! | [`scenario`] | one walk through every hook, for whatever carries out its steps |
//! | [`served`] | `host-sample serve` as a process |
//! | [`sources`] | the product's source text |
//! | [`janitor`] | clears up after servers in a static |
//! | [`ca`], [`process`], [`identity`] | certificates; child processes that cannot outlive us; who they run as |

pub mod built;
pub mod dovecot;
pub mod ews_schema;
pub mod families;
pub mod fixture;
pub mod fuzz;
pub mod identity;
pub mod idp;
pub mod janitor;
pub mod mailbox;
pub mod mailgen;
pub mod model;
pub mod postfix;
pub mod postgres;
pub mod process;
pub mod race;
pub mod relay;
pub mod sandboxed;
pub mod scenario;
pub mod scripted_imap;
pub mod served;
pub mod servers;
pub mod soak;
pub mod sources;
pub mod strict_idp;
#[cfg(feature = "test-seam")]
pub mod sweep;
pub mod tls_server;
pub mod wayward_idp;
pub mod wayward_imap;
pub mod wire;

pub use oauth_mail_sandbox::{Error, Result, browser, ca};
pub use servers::{MailboxFormat, Options, Servers};
