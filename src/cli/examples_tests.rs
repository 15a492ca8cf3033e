//! Every `finhook …` line that is shown to people, in `--help` and in the documents, is one that the parser takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory, Parser};

use super::Cli;

/// The arguments of each `finhook` (or `cargo run … --`) command in lines as one would type them.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    text.replace("\\\n", " ").lines().filter_map(arguments).collect()
}

fn arguments(line: &str) -> Option<Vec<String>> {
    let words = words(line);
    let is = |at: usize, name: &str| words.get(at).is_some_and(|word| word == name);
    let command = words.iter().position(|word| !word.starts_with("FINHOOK_"))?;
    let start = match words[command].as_str() {
        "cargo" if is(command + 1, "run") => words.iter().position(|word| word == "--")?,
        // In a container the program's name comes after the container's or the image's.
        "docker" if is(command + 1, "build") => return None,
        "docker" => words.iter().rposition(|word| word == "finhook")?,
        _ => (command..words.len())
            .find(|at| is(*at, "finhook") && (*at == command || ["|", "&&"].contains(&words[at - 1].as_str())))?,
    };
    let ends = |word: &String| {
        matches!(word.as_str(), "|" | "&&" | "||" | "&" | ";")
            || word.starts_with(['<', '>', '#'])
            || word.starts_with("2>")
    };
    let found: Vec<String> = words[start + 1..].iter().take_while(|word| !ends(word)).cloned().collect();
    Some(found).filter(|found| !found.is_empty())
}

/// Splits as a shell does, as far as quotes go.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn assert_all_parse(origin: &str, lines: &[Vec<String>]) {
    for line in lines {
        let parsed = Cli::try_parse_from(std::iter::once("finhook".to_owned()).chain(line.iter().cloned()));
        let asked_for_help = |e: &clap::Error| e.exit_code() == 0;
        assert!(
            parsed.as_ref().map_or_else(asked_for_help, |_| true),
            "{origin}: finhook {}: {}",
            line.join(" "),
            parsed.unwrap_err()
        );
    }
}

fn helps(command: &Command, helps: &mut Vec<(String, String)>) {
    let text = [command.get_after_help(), command.get_after_long_help()];
    helps.extend(text.into_iter().flatten().map(|text| (command.get_name().to_owned(), text.to_string())));
    command.get_subcommands().for_each(|command| self::helps(command, helps));
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.to_owned(), root.join("docs")];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "md")).collect()
}

/// The lines inside of fenced blocks that are to be typed.
fn typed(markdown: &str) -> String {
    let (mut inside, mut typed) = (false, String::new());
    for line in markdown.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = matches!(language.trim(), "sh" | "bash" | "shell");
        } else if inside {
            typed.push_str(line.trim_start().trim_start_matches("$ "));
            typed.push('\n');
        }
    }
    typed
}

#[test]
fn a_command_line_is_found_in_what_one_would_type() {
    let text = "FINHOOK_ENV=x finhook check --config 'a b' # why\ncat f | finhook sign > out\ncargo run --release -- serve\n\
                docker exec finhook finhook healthcheck\ndocker build -t finhook .\n\
                docker run -p 8080:8080 finhook\nfinhook send --count \\\n  3 && echo done\nls finhook.toml";

    let found: Vec<String> = command_lines(text).iter().map(|line| line.join("·")).collect();

    assert_eq!(found, ["check·--config·a b", "sign", "serve", "healthcheck", "send·--count·3"]);
}

#[test]
fn the_examples_of_every_help_text_are_understood() {
    let mut found = Vec::new();
    helps(&Cli::command(), &mut found);

    assert!(found.len() > 5);
    for (command, text) in found {
        assert_all_parse(&command, &command_lines(&text));
    }
}

#[test]
fn the_command_lines_in_the_documents_are_understood() {
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        assert_all_parse(&document.display().to_string(), &command_lines(&typed(&text)));
    }
}
