//! The command line: what is typed, and what comes of it.
//!
//! One file a command. Exit codes: 0 done, 1 failed, 2 wrong usage, 78 the configuration is faulty (`EX_CONFIG` of
//! sysexits.h). Results go to stdout, messages to stderr.

mod admin;
mod chat;
mod check;
mod client;
mod conversations;
mod events;
pub mod fake_fin;
mod healthcheck;
mod journal;
mod live_client;
mod logging;
mod sample;
mod send;
mod serve;
mod shell;
mod sign;
mod sinks;
mod tail;
mod usage;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config};

const FAILED: u8 = 1;
/// As clap ends.
const WRONG_USAGE: u8 = 2;
const FAULTY_CONFIG: u8 = 78;

/// Receives Fin Agent API events, proves that they are authentic, stores them durably and delivers each to where it is
/// needed, in order.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Try it, with a secret of your own making:
  export FINHOOK__ENDPOINTS__FIN__SIGNING_SECRETS=a-secret-to-try-it
  finhook serve           # in one terminal: receives, stores, prints a line an event
  finhook send            # in another: posts a signed sample event

Configuration: built-in defaults < --config (or FINHOOK_CONFIG) < environment FINHOOK__SECTION__KEY.
  FINHOOK__SERVER__BIND=127.0.0.1:8080 finhook check     # what is in force, secrets redacted

Exit codes: 0 done, 1 failed, 2 wrong usage, 78 faulty configuration.";

/// What every command takes.
#[derive(Debug, clap::Args)]
struct Global {
    /// A TOML file, or a directory with default.toml and $FINHOOK_ENV.toml [env: FINHOOK_CONFIG]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl Global {
    fn load(&self) -> Result<config::Loaded, Failure> {
        Ok(Config::load(self.config.clone())?)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the receiver
    Serve(serve::Args),
    /// Check the configuration and print the effective one, secrets redacted
    Check(check::Args),
    /// Sign a sample event and post it to a running receiver
    Send(send::Args),
    /// Print the signature header's value for a body
    Sign(sign::SignArgs),
    /// Check the signature of a body: exit code 0 valid, 1 not
    Verify(sign::VerifyArgs),
    /// Follow the live stream of a running receiver
    Tail(tail::Args),
    /// Talk to Fin in the terminal: through the gateway, or to a stand-in with --fake
    Chat(chat::Args),
    /// See what Fin said to a customer, and whether your systems got it
    Conversations(conversations::Args),
    /// Look at stored events, send them again, or remove them
    Events(events::Args),
    /// See how the sinks stand; pause, resume, retry or forget one
    Sinks(sinks::Args),
    /// Make a copy of the journal, also while finhook runs
    Journal(journal::Args),
    /// Run a stand-in for the Fin Agent API, to develop and test against
    FakeFin(fake_fin::Args),
    /// Print completions for a shell: bash, zsh, fish and others
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write those of all commands to a folder
    Man(shell::ManArgs),
    /// Ask the running receiver whether it is ready: exit code 0 ready, 1 not
    Healthcheck(healthcheck::Args),
}

/// The definition of the command line.
fn command() -> clap::Command {
    with_whole_examples(Cli::command())
}

/// clap breaks what comes after the help at the terminal's width, in the middle of commands that are meant to be pasted. It leaves
/// alone what stands in the template.
fn with_whole_examples(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = names.iter().fold(command, |command, name| command.mut_subcommand(name, with_whole_examples));
    let Some(examples) = command.get_after_help().map(ToString::to_string) else { return command };
    command
        .help_template(format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{{all-args}}\n\n{examples}\n"))
}

/// Parses the command line, runs the command and gives the process's exit code.
pub fn main() -> ExitCode {
    let parsed = Cli::from_arg_matches_mut(&mut command().get_matches());
    let Cli { global, command } = parsed.unwrap_or_else(|error| error.format(&mut command()).exit());
    let result = match command {
        Command::Serve(args) => serve::run(args, &global),
        Command::Check(args) => check::run(args, &global),
        Command::Send(args) => send::run(args, &global),
        Command::Sign(args) => sign::sign(args, &global),
        Command::Verify(args) => sign::verify(args, &global),
        Command::Tail(args) => tail::run(args, &global),
        Command::Chat(args) => chat::run(args, &global),
        Command::Conversations(args) => conversations::run(args, &global),
        Command::Events(args) => events::run(args, &global),
        Command::Sinks(args) => sinks::run(args, &global),
        Command::FakeFin(args) => client::block_on(async {
            // What it does, a line an event, is what one wants to see of it.
            logging::init(&config::Log { format: None, level: "info".to_owned() })?;
            fake_fin::run(args, interrupted()?).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Journal(args) => journal::run(args, &global),
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
        Command::Healthcheck(args) => healthcheck::run(args, &global),
    };
    result.unwrap_or_else(|failure| {
        // Nobody is left to tell when this fails too.
        let _ = writeln!(io::stderr(), "finhook: {}", failure.message);
        ExitCode::from(failure.code)
    })
}

/// Why a command could not do its work: one message for people, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        let code = if error.is_wrong_usage() { WRONG_USAGE } else { FAULTY_CONFIG };
        Self { code, message: error.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}

/// SIGINT and SIGTERM, as they come.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they don't end the process by themselves.
    fn catch() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Completes at either.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Completes at SIGINT, as by Ctrl-C.
    async fn interrupted(&mut self) {
        self.interrupt.recv().await;
    }
}

/// Completes at SIGINT or SIGTERM.
fn interrupted() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals = Signals::catch()?;
    Ok(async move { signals.any().await })
}

/// Prints a result. That the reader has gone away (`finhook check | head -1`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Failure::new(format!("can't write to stdout: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod examples_tests;

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
