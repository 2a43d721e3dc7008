//! What is printed: tables while it measures, one JSON object per line and the count of targets at the end.

use serde_json::{Value, json};

use crate::run::{Run, median};

#[derive(Default)]
pub struct Report {
    lines: Vec<Value>,
    targets: usize,
    met: usize,
}

/// What must hold.
#[derive(Clone, Copy)]
pub enum Target {
    /// Ours divided by the peer's is at least this.
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// Ours alone.
    AtMost(f64),
}

impl Report {
    /// Something that has a target, or (with `None`) only a place in the report.
    pub fn add(&mut self, name: &str, ours: f64, peer: Option<f64>, ratio: Option<f64>, target: Option<Target>) {
        let ok = target.map(|target| match target {
            Target::RatioAtLeast(bound) => ratio.is_some_and(|ratio| ratio >= bound),
            Target::RatioAtMost(bound) => ratio.is_some_and(|ratio| ratio <= bound),
            Target::AtMost(bound) => ours <= bound,
        });
        let text = target.map(|target| match target {
            Target::RatioAtLeast(bound) => format!("ratio >= {bound}"),
            Target::RatioAtMost(bound) => format!("ratio <= {bound}"),
            Target::AtMost(bound) => format!("<= {bound}"),
        });
        if let (Some(text), Some(ok)) = (&text, ok) {
            self.targets += 1;
            self.met += usize::from(ok);
            let shown = ratio.map_or_else(|| rounded(ours).to_string(), |ratio| rounded(ratio).to_string());
            println!("  {} {name}: {shown} (target {text})", if ok { "met   " } else { "MISSED" });
        }
        self.lines.push(json!({
            "name": name,
            "ours": rounded(ours),
            "peer": peer.map(rounded),
            "ratio": ratio.map(rounded),
            "target": text,
            "ok": ok,
        }));
    }

    pub fn finish(&self) {
        println!();
        for line in &self.lines {
            println!("{line}");
        }
        println!("bench: {}/{} targets met", self.met, self.targets);
    }
}

/// The rounds of one client.
pub struct Client {
    pub name: &'static str,
    pub rounds: Vec<Run>,
}

impl Client {
    pub fn seconds(&self) -> f64 {
        median(self.rounds.iter().map(|run| run.seconds))
    }

    pub fn peak_mb(&self) -> f64 {
        self.rounds.iter().map(|run| run.peak_mb).fold(0.0, f64::max)
    }

    /// How many times as fast as `peer`: median of the ratios within each round, because a round's runs follow each
    /// other closely while the machine may change from round to round.
    pub fn times_as_fast_as(&self, peer: &Self) -> f64 {
        median(self.rounds.iter().zip(&peer.rounds).map(|(ours, theirs)| theirs.seconds / ours.seconds))
    }
}

/// Medians; the ratio is to the first client or to the one that `peer_of` names.
pub fn table(clients: &[&Client], messages: usize, bytes: u64, peer_of: impl Fn(usize) -> usize) {
    println!(
        "  {:<44}{:>9}{:>12}{:>9}{:>9}{:>10}{:>8}",
        "", "wall s", "messages/s", "MB/s", "CPU s", "peak MB", "ratio"
    );
    for (at, client) in clients.iter().enumerate() {
        let seconds = client.seconds();
        println!(
            "  {:<44}{seconds:>9.2}{:>12.0}{:>9.1}{:>9.2}{:>10.1}{:>8.2}",
            client.name,
            messages as f64 / seconds,
            bytes as f64 / 1e6 / seconds,
            median(client.rounds.iter().map(|run| run.cpu_seconds)),
            client.peak_mb(),
            client.times_as_fast_as(clients[peer_of(at)]),
        );
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
