//! finhook behind the nginx and the Caddy that `deploy/` configures, with TLS as it comes from Fin.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use finhook::verify::{self, sign};
use finhook::{config, outbound};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Body, Client, Method, StatusCode};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::deploy;
use crate::support::SECRET;
use crate::support::process::{Finhook, Place, body};
use crate::support::server::{Server, free_address};
use crate::support::wait::until;

/// The name in the files.
const NAME: &str = "finhook.example.com";

/// A proxy whose certificate a client trusts, and finhook behind it; both are ended when it is dropped.
struct Front {
    url: String,
    client: Client,
    _proxy: Server,
    _finhook: Finhook,
    _folder: tempfile::TempDir,
}

impl Front {
    fn nginx() -> Self {
        Self::start("nginx/finhook.conf", |conf, address, folder| {
            let path = |name: &str| folder.join(name).display().to_string();
            let conf = conf
                .replace("listen 443 ssl", &format!("listen {address} ssl"))
                .replace("/etc/ssl/finhook/certificate.pem", &path("certificate.pem"))
                .replace("/etc/ssl/finhook/key.pem", &path("key.pem"));
            let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let temp: String = temp.map(|kind| format!("{kind}_temp_path {};\n", path(kind))).concat();
            // One process, so that nothing is left of it. The user matters to root only, who may read the folder.
            let main = format!(
                "daemon off;\nmaster_process off;\nuser root;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{conf}}}\n",
                path("pid")
            );
            fs::write(folder.join("nginx.conf"), main).unwrap();
            let mut nginx = Command::new("nginx");
            nginx.args(["-e", "stderr", "-c"]).arg(folder.join("nginx.conf"));
            nginx
        })
    }

    fn caddy() -> Self {
        Self::start("caddy/Caddyfile", |conf, address, folder| {
            let port = address.port();
            let tls = format!("{NAME}:{port} {{\n\ttls {0}/certificate.pem {0}/key.pem\n", folder.display());
            let conf = conf
                .replacen(
                    "{\n\tservers",
                    "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_bind 127.0.0.1\n\tservers",
                    1,
                )
                .replace(&format!("{NAME} {{\n"), &tls);
            fs::write(folder.join("Caddyfile"), conf).unwrap();
            let mut caddy = Command::new("caddy");
            caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
            // Where it keeps what it remembers.
            caddy.env("HOME", folder).env_remove("XDG_DATA_HOME").env_remove("XDG_CONFIG_HOME");
            caddy
        })
    }

    /// `command` gets the file, with finhook's address in it, the proxy's address, and a folder with the certificate.
    fn start(file: &str, command: impl FnOnce(String, SocketAddr, &Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(folder.path().join("certificate.pem"), certificate.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
        let finhook = Place::new(folder.path(), "").start_under(at_its_usual_path()).unwrap();
        let address = free_address();
        let conf = fs::read_to_string(deploy(file)).unwrap().replace("127.0.0.1:8080", &finhook.public.to_string());
        let mut command = command(conf, address, folder.path());
        let log = folder.path().join("proxy.log");
        let proxy = Server::start(&mut command, &log);
        until("the proxy", || TcpStream::connect(address).is_ok());
        let client = client(certificate.der(), address);
        let url = format!("https://{NAME}:{}", address.port());
        Self { url, client, _proxy: proxy, _finhook: finhook, _folder: folder }
    }

    async fn post(&self, signed: &str, sent: impl Into<Body>) -> (StatusCode, String) {
        let request = self
            .client
            .post(format!("{}/webhooks/fin", self.url))
            .header("content-type", "application/json")
            .header(verify::HEADER, sign(&SECRET.into(), signed.as_bytes()))
            .body(sent);
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    }

    async fn accepted(&self, body: String) {
        let (status, answer) = self.post(&body, body.clone()).await;
        assert!(status == StatusCode::OK && answer.contains("accepted"), "{status}: {answer}");
    }

    async fn status(&self, method: Method, path: &str) -> StatusCode {
        self.client.request(method, format!("{}{path}", self.url)).send().await.unwrap().status()
    }
}

/// Starts finhook where the callback URL has its built-in path.
fn at_its_usual_path() -> Command {
    let mut env = Command::new("env");
    env.arg("FINHOOK__ENDPOINTS__FIN__PATH=/webhooks/fin");
    env
}

/// Trusts one certificate, and finds its name at `address`.
fn client(certificate: &CertificateDer<'_>, address: SocketAddr) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone().into_owned()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    outbound::client().unwrap().tls_backend_preconfigured(tls).resolve(NAME, address).build().unwrap()
}

/// What Fin sends comes to finhook unchanged, and nothing else does.
async fn passes_on_events_and_nothing_else(front: &Front) {
    let max = config::Inputs::default().load().unwrap().config.server.max_body_bytes;
    assert_eq!(front.status(Method::HEAD, "/webhooks/fin").await, StatusCode::OK);
    // Blanks and letters that a proxy that reads JSON would change.
    front.accepted(body("eins  — zwei\\u00e9", 1, 0).replace("\":", "\" :\t")).await;
    for number in 2..20 {
        front.accepted(body("a conversation", number, 0)).await;
    }
    let chunked = body("chunks", 20, 0);
    let pieces: Vec<Result<_, std::io::Error>> =
        chunked.as_bytes().chunks(100).map(|piece| Ok(piece.to_vec())).collect();
    let (status, answer) = front.post(&chunked, Body::wrap_stream(futures_util::stream::iter(pieces))).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let largest = body("large", 21, max - body("large", 21, 0).len());
    assert_eq!(largest.len(), max);
    front.accepted(largest.clone()).await;

    let larger = largest + " ";
    for _ in 0..20 {
        assert_eq!(front.post(&larger, larger.clone()).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(front.post("something else", body("forged", 22, 0)).await.0, StatusCode::UNAUTHORIZED);
    for path in ["/", "/metrics", "/livez", "/readyz", "/api/v1/events", "/webhooks/../metrics"] {
        assert_eq!(front.status(Method::GET, path).await, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_passes_on_events_unchanged_and_nothing_else() {
    passes_on_events_and_nothing_else(&Front::nginx()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn caddy_passes_on_events_unchanged_and_nothing_else() {
    passes_on_events_and_nothing_else(&Front::caddy()).await;
}

#[test]
fn both_end_idle_connections_before_finhook_does() {
    let idle = config::Inputs::default().load().unwrap().config.server.idle_timeout;
    for (file, setting) in [("nginx/finhook.conf", "keepalive_timeout "), ("caddy/Caddyfile", "keepalive ")] {
        let text = fs::read_to_string(deploy(file)).unwrap();
        let kept = text.lines().find_map(|line| line.trim().strip_prefix(setting)).unwrap();
        assert!(humantime::parse_duration(kept.trim_end_matches(';')).unwrap() < idle, "{file}: {kept}");
    }
}
