//! Arguments of the macro benchmarks: `cargo bench --bench NAME -- [--quick] [--pairs N] [--list] [PART]…`.

use std::time::Duration;

use super::Result;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Parts to run; all of them if none is named.
    pub(crate) parts: Vec<String>,
    /// A hundredth of the events and short runs: to see that everything works. Results are not published.
    pub(crate) quick: bool,
    /// Pairs of a paired measurement.
    pub(crate) pairs: Option<usize>,
    /// Factor on numbers of events.
    pub(crate) scale: f64,
    /// How long one measured run is.
    pub(crate) run: Duration,
}

impl Options {
    /// Reads the program's arguments; `None` when there is nothing to run.
    pub(crate) fn read(parts: &[&str]) -> Result<Option<Self>> {
        let mut options =
            Self { parts: Vec::new(), quick: false, pairs: None, scale: 1.0, run: Duration::from_millis(2500) };
        let mut benching = false;
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // Cargo's own: says that this is `cargo bench`, not `cargo test --benches`.
                "--bench" => benching = true,
                "--list" => {
                    println!("{}", parts.join("\n"));
                    return Ok(None);
                }
                "--quick" => {
                    options.quick = true;
                    options.scale = 0.01;
                    options.run = Duration::from_millis(400);
                }
                "--pairs" => options.pairs = Some(value()?.parse()?),
                "--scale" => options.scale = value()?.parse()?,
                "--run" => options.run = Duration::from_secs_f64(value()?.parse()?),
                part if parts.contains(&part) => options.parts.push(part.to_owned()),
                other => return Err(format!("unknown argument {other}; parts: {}", parts.join(", ")).into()),
            }
        }
        if options.parts.is_empty() {
            options.parts = parts.iter().map(|part| (*part).to_owned()).collect();
        }
        if !benching {
            println!("this is a benchmark: run it with `cargo bench`");
        }
        Ok(benching.then_some(options))
    }

    /// How many pairs to measure.
    pub(crate) fn pairs(&self, usual: usize) -> usize {
        self.pairs.unwrap_or(if self.quick { 1 } else { usual })
    }

    /// Whether the run is as long as the published ones have to be.
    pub(crate) fn publishes(&self) -> bool {
        !self.quick
            && self.scale >= 1.0
            && self.pairs.is_none_or(|pairs| pairs >= 5)
            && self.run >= Duration::from_secs(2)
    }

    /// A number of events, scaled; at least 2,000.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn events(&self, count: u64) -> u64 {
        ((count as f64 * self.scale) as u64).max(2_000)
    }

    /// A duration that is cut short in a quick run.
    pub(crate) fn time(&self, usual: Duration) -> Duration {
        if self.quick { (usual / 10).min(Duration::from_secs(3)) } else { usual }
    }
}
