//! What the user sees of a conversation.
//!
//! On a terminal the status and a growing reply are repainted in place; in a pipe only what is final is printed, a line
//! at a time, without escape sequences.

use std::io::{self, IsTerminal, Write};

use crate::cli::Failure;
use crate::fin::{self, Event};
use crate::terminal::{Paint, html, printable, wrap};

/// Columns where the terminal's width is not known, and the widest that is comfortable to read.
const WIDTH: usize = 80;
const WIDEST: usize = 100;
/// Lines of a growing reply that are shown where the terminal's height is not known.
const HEIGHT: usize = 24;

/// Writes to stdout.
pub(super) struct Screen {
    paint: Paint,
    terminal: bool,
    width: usize,
    height: usize,
    /// Lines painted last that will be painted over.
    painted: usize,
    /// The growing reply, while there is one.
    growing: Option<String>,
}

impl Screen {
    pub(super) fn new(paint: Paint) -> Self {
        let terminal = io::stdout().is_terminal();
        let size = terminal.then(terminal_size::terminal_size).flatten();
        let (width, height) = size.map_or((WIDTH, HEIGHT), |(width, height)| (width.0.into(), height.0.into()));
        // Room for the indent and the cursor.
        Self { paint, terminal, width: width.min(WIDEST).saturating_sub(6), height, painted: 0, growing: None }
    }

    /// `You  text` or the like.
    pub(super) fn prompt(&self, who: &str, text: &str) -> String {
        format!("{}  {text}", self.paint.bold(who))
    }

    /// A line that stays.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.settle()?;
        write(&format!("{text}\n"))
    }

    /// A remark of finhook's own.
    pub(super) fn note(&mut self, text: &str) -> Result<(), Failure> {
        let text = self.paint.in_colour(&format!("· {text}"), "36");
        self.line(&text)
    }

    /// Asks for a line.
    pub(super) fn ask(&mut self, prompt: &str) -> Result<(), Failure> {
        self.settle()?;
        write(&self.prompt(prompt, ""))
    }

    /// What Fin is doing, until something else is shown.
    pub(super) fn status(&mut self, status: &str) -> Result<(), Failure> {
        if !self.terminal || self.growing.is_some() {
            return Ok(());
        }
        let text = self.paint.dim(&format!("Fin  … {}", printable(status).replace('_', " ")));
        self.repaint(&[text])
    }

    /// A change of status; those that matter stay.
    pub(super) fn status_updated(&mut self, event: &Event) -> Result<(), Failure> {
        match event.status.as_deref().unwrap_or("") {
            fin::ESCALATED => {
                let reason = event.reason.as_deref().unwrap_or("no reason given");
                self.note(&format!("escalated to people: {}", printable(reason)))
            }
            fin::RESOLVED => self.note("resolved"),
            fin::AWAITING | fin::COMPLETE => Ok(()),
            status => self.status(status),
        }
    }

    /// The reply so far.
    pub(super) fn growing(&mut self, text: &str) -> Result<(), Failure> {
        self.growing = Some(text.to_owned());
        if !self.terminal {
            return Ok(());
        }
        let lines = self.indented(&wrap(text, self.width));
        // What has scrolled away can't be painted over.
        let skipped = lines.len().saturating_sub(self.height.saturating_sub(2).max(1));
        self.repaint(&lines[skipped..])
    }

    /// The final text, in place of what has grown.
    pub(super) fn reply(&mut self, body: &str) -> Result<(), Failure> {
        self.growing = None;
        let lines = self.indented(&html(body, self.width));
        self.repaint(&lines)?;
        self.painted = 0;
        Ok(())
    }

    /// Leaves what is on the screen, but no status line; a reply that was never finished stays as it was.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        match self.growing.take() {
            Some(text) if !self.terminal => {
                let lines = self.indented(&wrap(&text, self.width));
                self.repaint(&lines)?;
            }
            Some(_) => {}
            None if self.painted > 0 => self.repaint(&[])?,
            None => {}
        }
        self.painted = 0;
        Ok(())
    }

    fn indented(&self, lines: &[String]) -> Vec<String> {
        let who = self.paint.in_colour("Fin", "1;32");
        let mark = |at: usize| if at == 0 { who.clone() } else { "   ".to_owned() };
        lines.iter().enumerate().map(|(at, line)| format!("{}  {line}", mark(at)).trim_end().to_owned()).collect()
    }

    /// Paints lines over those painted last.
    fn repaint(&mut self, lines: &[String]) -> Result<(), Failure> {
        let mut text = String::new();
        if self.terminal && self.painted > 0 {
            // To the beginning of the first of them, and clear from there.
            text.push_str(&format!("\x1b[{}F\x1b[J", self.painted));
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.painted = lines.len();
        write(&text)
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::from)
}
