//! PostgreSQL with TLS and durable commits, and pgbouncer in transaction mode before it.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    Error, Result,
    ca::Ca,
    identity::Identity,
    process::{self, Process},
};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const ADMIN: &str = "admin";
/// The user and the database of the store.
const NAME: &str = "mail";
const PASSWORD: &str = "canary-database-password";

/// A server with one empty database. Dropping it ends it, and its data are gone.
pub struct Postgres {
    process: Process,
    pub port: u16,
    programs: PathBuf,
    identity: Identity,
    ca_file: PathBuf,
    dir: TempDir,
}

impl Postgres {
    /// On a port of 127.0.0.1, fsync on, every statement logged with its parameters.
    pub fn start(ca: &Ca) -> Result<Self> {
        let identity = Identity::of_servers()?;
        let programs = programs()?;
        let dir = folder("ompg")?;
        let data = dir.path().join("data");
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD)?;
        private_copy(ca, dir.path())?;
        identity.give(dir.path())?;
        run(identity
            .command(&programs.join("initdb"))
            .args(["-U", ADMIN, "-A", "scram-sha-256", "--auth-local=trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .arg("--pwfile")
            .arg(&password)
            .arg("-D")
            .arg(&data)
            .env("TZ", "UTC"))?;
        let port = free_port()?;
        let path = dir.path().display();
        let configuration = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{path}'\n\
             ssl = on\nssl_cert_file = '{path}/server.pem'\nssl_key_file = '{path}/server.key'\n\
             fsync = on\nsynchronous_commit = off\nmax_connections = 100\n\
             log_statement = all\nlog_parameter_max_length = -1\nlog_line_prefix = '%m '\n"
        );
        // `synchronous_commit = off` on purpose: the store must not rely on what the administrator chose.
        let file = data.join("postgresql.conf");
        let base = fs::read_to_string(&file)?;
        fs::write(&file, base + &configuration)?;
        let process = launch(&programs, &identity, dir.path())?;
        let server = Self { process, port, programs, identity, ca_file: ca.ca_file.clone(), dir };
        server.wait()?;
        server.sql(
            "postgres",
            &format!("CREATE ROLE {NAME} LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE {NAME} OWNER {NAME};"),
        )?;
        Ok(server)
    }

    /// The store in it, through TLS.
    pub fn url(&self) -> String {
        url(self.port, &self.ca_file)
    }

    /// The store in it, over its Unix socket.
    pub fn socket_url(&self) -> String {
        let folder = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://{NAME}:{PASSWORD}@{folder}:{}/{NAME}", self.port)
    }

    /// The store on whichever of the two serves as primary.
    pub fn url_with(&self, standby: &Self) -> String {
        self.url().replace(
            &format!("localhost:{}", self.port),
            &format!("localhost:{},localhost:{}", self.port, standby.port),
        )
    }

    /// A standby of this server that follows it asynchronously; can be read.
    pub fn standby(&self) -> Result<Self> {
        let dir = folder("omps")?;
        self.identity.give(dir.path())?;
        let (data, port, path) = (dir.path().join("data"), free_port()?, dir.path().display());
        run(self
            .client("pg_basebackup")
            .args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync", "-D"])
            .arg(&data))?;
        let file = data.join("postgresql.conf");
        let configuration = fs::read_to_string(&file)?;
        fs::write(&file, format!("{configuration}port = {port}\nunix_socket_directories = '{path}'\n"))?;
        let process = launch(&self.programs, &self.identity, dir.path())?;
        let (programs, identity, ca_file) = (self.programs.clone(), self.identity.clone(), self.ca_file.clone());
        let standby = Self { process, port, programs, identity, ca_file, dir };
        standby.wait()?;
        Ok(standby)
    }

    /// The standby gets nothing more from its primary.
    pub fn stop_following(&self) -> Result<()> {
        self.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''; SELECT pg_reload_conf();")?;
        self.process.wait_until(START_TIMEOUT, || {
            let running = self.sql("postgres", "SELECT count(*) FROM pg_stat_wal_receiver;").ok()?;
            (running.trim() == "0").then_some(())
        })
    }

    /// The standby takes over.
    pub fn promote(&self) -> Result<()> {
        let data = self.dir.path().join("data");
        run(self.identity.command(&self.programs.join("pg_ctl")).args(["promote", "-w", "-D"]).arg(data)).map(drop)
    }

    /// Gone after drop.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// As an administrator who is logged in on the machine.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        // One by one: CREATE DATABASE does not go with others.
        let mut said = String::new();
        for statement in sql.split_inclusive(';').filter(|statement| !statement.trim().is_empty()) {
            said += &run(self
                .client("psql")
                .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
                .args(["-d", database, "-c", statement]))?;
        }
        Ok(said)
    }

    /// On the store's database.
    pub fn store_sql(&self, sql: &str) -> Result<String> {
        self.sql(NAME, sql)
    }

    /// All that a backup would hold.
    pub fn dump(&self) -> Result<String> {
        run(self.client("pg_dump").arg(NAME))
    }

    /// Every statement so far, with its parameters.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(log_file(self.dir.path()))?)
    }

    /// As an administrator does it: connections are ended, nothing is lost.
    pub fn stop(&mut self) {
        let data = self.dir.path().join("data");
        let mut command = self.identity.command(&self.programs.join("pg_ctl"));
        let _ = run(command.args(["stop", "-m", "fast", "-w", "-D"]).arg(data));
        self.process.stop();
    }

    /// Without a word: what was committed must be there afterwards.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// On the same port, with the same data.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.process = launch(&self.programs, &self.identity, self.dir.path())?;
        self.wait()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = self.identity.command(&self.programs.join(program));
        command.arg("-h").arg(self.dir.path()).args(["-p", &self.port.to_string(), "-U", ADMIN]);
        command
    }

    fn wait(&self) -> Result<()> {
        self.process.wait_until(START_TIMEOUT, || {
            let mut ready = self.client("pg_isready");
            ready
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
                .then_some(())
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.is_running() {
            self.stop();
        }
    }
}

/// pgbouncer: transaction pooling, three server connections for all, each transaction on another one.
pub struct PgBouncer {
    process: Process,
    pub port: u16,
    ca_file: PathBuf,
    dir: TempDir,
}

impl PgBouncer {
    pub fn start(ca: &Ca, postgres: &Postgres) -> Result<Self> {
        let identity = Identity::of_servers()?;
        let program = process::installed(&["/usr/sbin/pgbouncer"])?;
        let dir = folder("ompb")?;
        private_copy(ca, dir.path())?;
        fs::copy(&ca.ca_file, dir.path().join("ca.pem"))?;
        fs::write(dir.path().join("users"), format!("\"{NAME}\" \"{PASSWORD}\"\n"))?;
        let (port, path) = (free_port()?, dir.path().display());
        let configuration = format!(
            "[databases]\n{NAME} = host=127.0.0.1 port={server}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {path}/users\n\
             pool_mode = transaction\ndefault_pool_size = 3\nserver_round_robin = 1\nmax_client_conn = 300\n\
             server_login_retry = 1\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {path}/server.pem\n\
             client_tls_key_file = {path}/server.key\n\
             server_tls_sslmode = verify-full\nserver_tls_ca_file = {path}/ca.pem\n",
            server = postgres.port,
        );
        let file = dir.path().join("pgbouncer.ini");
        fs::write(&file, configuration)?;
        identity.give(dir.path())?;
        let mut command = identity.command(&program);
        command.arg(&file);
        let process = Process::start("pgbouncer", &command, &log_file(dir.path()))?;
        process.wait_until(START_TIMEOUT, || std::net::TcpStream::connect(("127.0.0.1", port)).ok())?;
        Ok(Self { process, port, ca_file: ca.ca_file.clone(), dir })
    }

    /// The store behind it, through TLS.
    pub fn url(&self) -> String {
        url(self.port, &self.ca_file)
    }

    /// Gone after drop.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn url(port: u16, ca_file: &Path) -> String {
    format!(
        "postgres://{NAME}:{PASSWORD}@localhost:{port}/{NAME}?sslmode=verify-full&sslrootcert={}",
        ca_file.display()
    )
}

fn launch(programs: &Path, identity: &Identity, dir: &Path) -> Result<Process> {
    let mut command = identity.command(&programs.join("postgres"));
    command.arg("-D").arg(dir.join("data"));
    Process::start("postgres", &command, &log_file(dir))
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Debian keeps the programs of each version apart: the newest.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path().join("bin");
        folder.join("initdb").exists().then_some((number, folder))
    });
    newest
        .max()
        .map(|(_, folder)| folder)
        .ok_or_else(|| Error::new("PostgreSQL is not installed. Run tests/install.sh once."))
}

/// PostgreSQL and pgbouncer insist on a key that nobody else can read.
fn private_copy(ca: &Ca, dir: &Path) -> Result<()> {
    fs::copy(&ca.server_certificate, dir.join("server.pem"))?;
    fs::copy(&ca.server_key, dir.join("server.key"))?;
    fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Short, because a socket's path must be below 108 bytes.
fn folder(prefix: &str) -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix(prefix).tempdir_in("/tmp")?)
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.current_dir("/").output().map_err(Error::doing(format_args!("running {name}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!("{command:?}: {}: {}", output.status, said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
