//! Results: a table on stdout, and a JSON file that keeps the rows of parts that were not run this time.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::cli::Options;
use super::{Result, machine};

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The goal, as text; empty if there is none.
    pub(crate) goal: String,
    /// The figure, as text.
    pub(crate) figure: String,
    /// Whether the goal was met; `None` if there is none.
    pub(crate) met: Option<bool>,
    /// What the figure was made from.
    pub(crate) detail: Value,
}

/// Collects rows and writes them after each part, so that an interrupted run keeps what it has.
pub(crate) struct Report {
    file: PathBuf,
    results: Map<String, Value>,
    machine: Value,
    fresh: Vec<Row>,
}

impl Report {
    /// Continues the file of this name under `docs/`, or under `target/` in a quick run.
    pub(crate) fn open(name: &str, options: &Options) -> Result<Self> {
        let file = directory(options).join(format!("{name}.json"));
        let text = fs::read_to_string(&file).unwrap_or_else(|_| "{}".into());
        let old: Value = serde_json::from_str(&text)?;
        let results = old["parts"].as_object().cloned().unwrap_or_default();
        let mut machine = machine::describe();
        let fdatasync = machine::fdatasync()?;
        eprintln!("fdatasync of 16 KiB: {}", fdatasync.line());
        machine["fdatasync_ms"] = json!({"p50": fdatasync.at(50.0), "p99": fdatasync.at(99.0), "max": fdatasync.max()});
        Ok(Self { file, results, machine, fresh: Vec::new() })
    }

    /// Adds a row of a part; the rows that the part had from an earlier run are replaced.
    pub(crate) fn add(&mut self, part: &str, rows: Vec<Row>) -> Result<()> {
        for row in &rows {
            let mark = row.met.map_or("", |met| if met { "  (met)" } else { "  (missed)" });
            eprintln!("→ {}: {}{}{mark}", row.what, row.figure, goal_text(row));
        }
        let json_rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({"what": row.what, "goal": row.goal, "figure": row.figure, "met": row.met, "detail": row.detail})
            })
            .collect();
        let measured = json!({"machine": self.machine, "rows": json_rows});
        self.results.insert(part.to_owned(), measured);
        self.fresh.extend(rows);
        if let Some(parent) = self.file.parent() {
            fs::create_dir_all(parent)?;
        }
        let all = json!({"parts": self.results});
        Ok(fs::write(&self.file, format!("{:#}\n", all))?)
    }

    /// What an earlier or this run found for a part.
    pub(crate) fn detail(&self, part: &str, row: usize) -> Value {
        self.results.get(part).map_or(Value::Null, |part| part["rows"][row]["detail"].clone())
    }

    /// Where the results are.
    pub(crate) fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("."))
    }

    /// Prints the rows of this run.
    pub(crate) fn print(&self) {
        let fdatasync = &self.machine["fdatasync_ms"];
        println!("\n| what | goal | measured | |\n| --- | --- | --- | --- |");
        for row in &self.fresh {
            let mark = row.met.map_or("", |met| if met { "met" } else { "missed" });
            println!("| {} | {} | {} | {mark} |", row.what, row.goal, row.figure);
        }
        println!("\nfdatasync of 16 KiB here: p50 {} ms, p99 {} ms", fdatasync["p50"], fdatasync["p99"]);
        println!("results: {}", self.file.display());
    }
}

/// `docs/`, or a folder under `target/` when the run was too short to be published.
pub(crate) fn directory(options: &Options) -> PathBuf {
    if options.publishes() {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
    } else {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-quick")
    }
}

fn goal_text(row: &Row) -> String {
    if row.goal.is_empty() { String::new() } else { format!(" (goal {})", row.goal) }
}
