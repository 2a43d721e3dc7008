//! What Prometheus is told, in its text format 0.0.4. Counters are of this process; mailboxes are those of all nodes.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Name, type, help; in the order in which they are shown.
const FAMILIES: [(&str, &str, &str); 7] = [
    ("host_fetch_rounds_total", "counter", "Rounds over a mailbox by how they ended."),
    ("host_messages_total", "counter", "Fetched messages by what became of them."),
    ("host_sends_total", "counter", "Messages that were to be sent, by outcome."),
    ("host_round_seconds_total", "counter", "Seconds spent in rounds."),
    ("host_mailboxes", "gauge", "Mailboxes by state."),
    ("host_queue_lag_seconds", "gauge", "By how much the mailbox that waits longest is late."),
    ("host_rounds_running", "gauge", "Rounds that run on this node."),
];

/// Family, label (its name and its value), value.
pub type Gauge<'a> = (&'a str, Option<(&'a str, &'a str)>, i64);

/// Families with their samples; the label is part of the name: `host_sends_total{outcome="sent"}`.
#[derive(Default)]
pub struct Metrics(Mutex<BTreeMap<String, f64>>);

impl Metrics {
    /// `label`: its name and its value.
    pub fn add(&self, family: &str, label: Option<(&str, &str)>, count: i64) {
        self.add_to(name(family, label), count as f64);
    }

    pub fn add_seconds(&self, family: &str, time: Duration) {
        self.add_to(name(family, None), time.as_secs_f64());
    }

    fn add_to(&self, name: String, amount: f64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += amount;
    }

    /// `gauges`: what is true right now.
    pub fn render(&self, gauges: &[Gauge<'_>]) -> String {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        samples.extend(gauges.iter().map(|(family, label, value)| (name(family, *label), *value as f64)));
        let mut text = String::new();
        for (family, kind, help) in FAMILIES {
            let _ = writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}");
            let own =
                |name: &str| name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'));
            for (name, value) in samples.iter().filter(|(name, _)| own(name)) {
                let _ = writeln!(text, "{name} {value}");
            }
        }
        text
    }
}

fn name(family: &str, label: Option<(&str, &str)>) -> String {
    match label {
        None => family.to_owned(),
        Some((label, value)) => {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{family}{{{label}=\"{value}\"}}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_stands_under_its_family() {
        let metrics = Metrics::default();
        metrics.add("host_sends_total", Some(("outcome", "sent")), 2);
        metrics.add("host_sends_total", Some(("outcome", "sent")), 1);
        for _ in 0..2 {
            metrics.add_seconds("host_round_seconds_total", Duration::from_millis(250));
        }
        let text = metrics.render(&[("host_mailboxes", Some(("state", "a\"b")), 3)]);
        assert!(text.contains("# TYPE host_sends_total counter\nhost_sends_total{outcome=\"sent\"} 3\n"), "{text}");
        assert!(text.contains("host_round_seconds_total 0.5\n"));
        assert!(text.contains("host_mailboxes{state=\"a\\\"b\"} 3\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
        }
    }
}
