//! `finhook sign` and `finhook verify`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use secrecy::SecretString;

use super::{FAILED, Failure, Global, print};
use crate::config::{Config, Endpoint};
use crate::verify::{Keyring, Scheme, Signature};

/// Print the value of X-Fin-Agent-API-Webhook-Signature for a body: `sha256=` and 64 hexadecimal digits.
///
/// With an endpoint for classic Intercom webhooks it is the value of X-Hub-Signature: `sha1=` and 40 digits.
/// The body is signed byte for byte: a line end at the end of the file counts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook sign body.json
  printf '{\"event_name\":\"fin_replied\"}' | finhook sign --secret a-secret-to-try-it
  curl -H \"X-Fin-Agent-API-Webhook-Signature: $(finhook sign body.json)\" \\
       -H 'Content-Type: application/json' --data-binary @body.json http://127.0.0.1:8080/webhooks/fin")]
pub(super) struct SignArgs {
    /// The body; `-` or nothing: stdin
    file: Option<PathBuf>,
    #[command(flatten)]
    with: With,
}

/// Check the signature of a body: exit code 0 when one of the secrets made it, else 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  finhook verify --signature sha256=2f0c… body.json
  finhook verify --signature \"$(finhook sign body.json)\" <body.json && echo yes")]
pub(super) struct VerifyArgs {
    /// The value of X-Fin-Agent-API-Webhook-Signature, or of X-Hub-Signature
    #[arg(long, value_name = "VALUE")]
    signature: String,
    /// The body; `-` or nothing: stdin
    file: Option<PathBuf>,
    #[command(flatten)]
    with: With,
}

/// The secrets to sign or to verify with.
#[derive(Debug, clap::Args)]
pub(super) struct With {
    /// The signing secret, instead of the configured ones
    #[arg(long, value_parser = secret, value_name = "SECRET")]
    secret: Option<SecretString>,
    /// Take the secrets of this endpoint
    #[arg(long, value_name = "NAME", conflicts_with = "secret")]
    endpoint: Option<String>,
}

impl With {
    /// The secret given on the command line; then the configuration need not be asked.
    pub(super) fn given(&self) -> Option<SecretString> {
        self.secret.clone()
    }

    /// The endpoint named on the command line.
    pub(super) fn named<'a>(&self, config: &'a Config) -> Result<Option<(&'a str, &'a Endpoint)>, Failure> {
        let Some(name) = &self.endpoint else { return Ok(None) };
        let found = config.endpoints.get_key_value(name).map(|(name, endpoint)| (name.as_str(), endpoint));
        found.map(Some).ok_or_else(|| {
            let names: Vec<_> = config.endpoints.keys().map(String::as_str).collect();
            Failure::new(format!("there is no endpoint {name:?}; configured: {}", names.join(", ")))
        })
    }

    /// How the endpoint named wants to be signed for, else Fin's.
    fn scheme(&self, global: &Global) -> Result<Scheme, Failure> {
        if self.endpoint.is_none() {
            return Ok(Scheme::Fin);
        }
        Ok(self.named(&global.load()?.config)?.map_or(Scheme::Fin, |(_, endpoint)| endpoint.kind))
    }

    /// The secret given, else those of the endpoint named, else those of all endpoints of a scheme.
    fn secrets(&self, scheme: Scheme, global: &Global) -> Result<Vec<SecretString>, Failure> {
        if let Some(secret) = self.given() {
            return Ok(vec![secret]);
        }
        let config = global.load()?.config;
        let secrets = match self.named(&config)? {
            Some((_, endpoint)) => endpoint.secrets.clone(),
            None => {
                let of_scheme = config.endpoints.values().filter(|endpoint| endpoint.kind == scheme);
                of_scheme.flat_map(|endpoint| endpoint.secrets.clone()).collect()
            }
        };
        if secrets.is_empty() {
            let name = self.endpoint.as_deref().or_else(|| config.endpoints.keys().next().map(String::as_str));
            let name = name.unwrap_or("fin");
            return Err(no_secret(name, config.endpoints.get(name).map_or(scheme, |endpoint| endpoint.kind)));
        }
        Ok(secrets)
    }
}

fn secret(text: &str) -> Result<SecretString, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(text.into()) }
}

/// What to do when an endpoint has no secret.
pub(super) fn no_secret(endpoint: &str, kind: Scheme) -> Failure {
    let (key, file_key) = Endpoint::secrets_key(kind);
    let var = format!("FINHOOK__ENDPOINTS__{endpoint}__{key}").to_uppercase();
    Failure::new(format!(
        "no signing secret: give --secret, or set {var} or endpoints.{endpoint}.{file_key} in the configuration"
    ))
}

pub(super) fn sign(args: SignArgs, global: &Global) -> Result<ExitCode, Failure> {
    let scheme = args.with.scheme(global)?;
    let secrets = args.with.secrets(scheme, global)?;
    let body = read(args.file.as_deref())?;
    let Some(current) = secrets.first() else { return Err(no_secret("fin", scheme)) };
    print(&format!("{}\n", scheme.sign(current, &body)))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn verify(args: VerifyArgs, global: &Global) -> Result<ExitCode, Failure> {
    let scheme = Scheme::of(Some(&args.signature));
    let secrets = args.with.secrets(scheme, global)?;
    let body = read(args.file.as_deref())?;
    let signature = match scheme {
        Scheme::Fin => Signature::parse(args.signature.as_bytes()),
        Scheme::Intercom => Signature::parse_hub(args.signature.as_bytes()),
    };
    let verified = signature
        .map_err(|e| e.to_string())
        .and_then(|signature| Keyring::of(scheme, &secrets).verify(&signature, body.into()).map_err(|e| e.to_string()));
    match verified {
        Ok(_) => {
            print("valid\n")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            print(&format!("not valid: {why}\n"))?;
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// A file's bytes, or those of stdin.
pub(super) fn read(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => std::fs::read(file).map_err(|e| Failure::new(format!("can't read {}: {e}", file.display()))),
        None => {
            let mut body = Vec::new();
            std::io::stdin().lock().read_to_end(&mut body)?;
            Ok(body)
        }
    }
}
