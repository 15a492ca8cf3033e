//! TLS that ends in finhook itself, through the real program: with the certificates that people have, and those they get wrong.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use finhook::verify::{HEADER, sign};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::SECRET;
use crate::support::command::Sandbox;
use crate::support::process::{Finhook, Place, body};
use crate::support::server::free_address;
use crate::support::wait::{PATIENCE, until};

/// Writes a new certificate for `name`, signed by itself, and its key, each in place at once.
pub fn renew(folder: &Path, name: &str) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    for (file, text) in [("cert.pem", certificate.pem()), ("key.pem", key.serialize_pem())] {
        std::fs::write(folder.join("new"), text).unwrap();
        std::fs::rename(folder.join("new"), folder.join(file)).unwrap();
    }
    certificate.der().clone()
}

fn settings(listener: &str) -> String {
    format!("[{listener}]\ntls_cert_file = \"cert.pem\"\ntls_key_file = \"key.pem\"\n")
}

/// A program whose public listener speaks TLS.
fn started(folder: &Path, more: &str) -> Finhook {
    Place::new(folder, "")
        .var("SERVER__TLS_CERT_FILE", "cert.pem")
        .var("SERVER__TLS_KEY_FILE", "key.pem")
        .var("SERVER__HEADER_TIMEOUT", "400ms")
        .var("SERVER__MAX_CONNECTIONS", more)
        .start()
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects as `localhost`, trusting one certificate; the handshake is done with the first request.
fn connect(to: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    while client.is_handshaking() {
        client.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(client, socket))
}

/// Posts an event and reads the head of the answer, and a body that comes with it.
fn post(tls: &mut Tls, body: &str) -> String {
    let signature = sign(&SECRET.into(), body.as_bytes());
    let head = format!(
        "POST /fin HTTP/1.1\r\nHost: localhost\r\n{HEADER}: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    tls.write_all((head + body).as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let mut read = 0;
    while !answer[..read].windows(4).any(|end| end == b"\r\n\r\n") || !answer[..read].ends_with(b"}") {
        let more = tls.read(&mut answer[read..]).unwrap();
        assert!(more > 0, "the connection ended after {:?}", String::from_utf8_lossy(&answer[..read]));
        read += more;
    }
    String::from_utf8(answer[..read].to_vec()).unwrap()
}

#[test]
fn events_come_over_tls_and_a_renewed_certificate_is_shown_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = renew(folder.path(), "localhost");
    let finhook = started(folder.path(), "100");
    let mut kept = connect(finhook.public, &first).unwrap();
    assert_eq!(kept.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    for number in 0..3 {
        assert!(post(&mut kept, &body("c", number, 20)).starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // Half of a renewal, and files that make no sense, change nothing.
    let whole = std::fs::read(folder.path().join("key.pem")).unwrap();
    std::fs::write(folder.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    until("the log says so", || finhook.logged("the former certificate stays in use").is_some());
    let said = finhook.logged("the former certificate stays in use").unwrap();
    assert!(
        said.contains("key.pem: it is not the certificate's key") && said.contains("server.tls_cert_file"),
        "{said}"
    );
    assert!(post(&mut connect(finhook.public, &first).unwrap(), &body("c", 3, 20)).starts_with("HTTP/1.1 200"));
    std::fs::write(folder.path().join("key.pem"), whole).unwrap();

    let second = renew(folder.path(), "localhost");
    until("the new certificate is shown", || connect(finhook.public, &second).is_ok());
    assert!(connect(finhook.public, &first).is_err(), "the former one is not shown any more");
    let event = body("c", 4, 20);
    assert!(post(&mut connect(finhook.public, &second).unwrap(), &event).contains("\"accepted\""));
    let answered = post(&mut connect(finhook.public, &second).unwrap(), &event);
    assert!(answered.contains("\"duplicate\""), "{answered}");
    let ended = finhook.stop();
    assert_eq!(ended.status.code(), Some(0));
}

#[test]
fn a_handshake_that_does_not_end_has_the_time_of_a_head_and_gives_way_at_the_cap() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = renew(folder.path(), "localhost");
    let finhook = started(folder.path(), "2");
    // A client hello that breaks off, silence, and a client that does not speak TLS at all.
    let ends = |sent: &[u8]| {
        let mut socket = TcpStream::connect(finhook.public).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(sent).unwrap();
        // Whatever comes (an alert, nothing, a reset), it ends.
        let mut rest = Vec::new();
        match socket.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    };
    for sent in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"", b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"] {
        assert!(ends(sent), "{sent:?}");
    }
    until("the log says so", || finhook.logged("a TLS handshake failed").is_some());

    let mut good = connect(finhook.public, &trusted).unwrap();
    assert!(post(&mut good, &body("c", 0, 20)).starts_with("HTTP/1.1 200"));
    let _silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(finhook.public).unwrap()).collect();
    let mut served = None;
    until("a genuine client is served among the silent", || {
        served = connect(finhook.public, &trusted).ok();
        served.is_some()
    });
    assert!(post(&mut served.unwrap(), &body("c", 1, 20)).starts_with("HTTP/1.1 200"));
}

#[test]
fn the_commands_reach_their_own_listeners_whatever_name_the_certificate_has_and_trust_no_other() {
    let folder = tempfile::tempdir().unwrap();
    renew(folder.path(), "hooks.example.com");
    let place = Place::new(folder.path(), "")
        .var("SERVER__BIND", &free_address().to_string())
        .var("ADMIN__BIND", &free_address().to_string());
    let place = ["SERVER", "ADMIN"].into_iter().fold(place, |place, listener| {
        place
            .var(&format!("{listener}__TLS_CERT_FILE"), "cert.pem")
            .var(&format!("{listener}__TLS_KEY_FILE"), "key.pem")
    });
    let finhook = place.start();
    assert!(finhook.logged("callback URL").unwrap().contains(&format!("https://{}/fin", finhook.public)));
    assert_eq!(place.run(&["healthcheck"]), "ready\n");
    assert!(place.run(&["send"]).ends_with(" accepted\n"));
    assert!(place.run(&["events", "list"]).contains("fin_replied"));
    let plain = place.sandbox().run(&["sinks", "--admin", &format!("http://{}", finhook.admin)]);
    assert_eq!(plain.code, 1, "{}", plain.stdout);
    let unknown = place.sandbox().run(&["sinks", "--admin", &format!("https://{}", finhook.admin)]);
    assert_eq!(unknown.code, 1, "an address that is given is checked like any other: {}", unknown.stdout);
    // Somebody else's certificate at the same place.
    renew(folder.path(), "hooks.example.com");
    let mut other = place.sandbox().run(&["healthcheck"]);
    assert!(other.code == 1 || other.stdout == "ready\n", "{}", other.stderr);
    until("the new certificate is in use", || {
        other = place.sandbox().run(&["healthcheck"]);
        other.code == 0
    });
}

#[test]
fn a_certificate_or_key_that_cant_be_used_is_refused_with_its_key_and_the_fix() {
    let refused = |sandbox: &Sandbox, wanted: &[&str]| {
        for command in ["check", "serve"] {
            let done = sandbox.run(&[command]);
            assert_eq!(
                (done.code, done.stdout.as_str(), done.stderr.matches('\n').count()),
                (78, "", 1),
                "{}",
                done.stderr
            );
            for text in wanted {
                assert!(done.stderr.contains(text), "{text:?} is not in {}", done.stderr);
            }
        }
    };
    for listener in ["server", "admin"] {
        let sandbox = Sandbox::with_config(&settings(listener));
        let (cert_key, key_key) = (format!("{listener}.tls_cert_file"), format!("{listener}.tls_key_file"));
        refused(&sandbox, &[&cert_key, "cert.pem", "can't be read", "make it readable"]);
        renew(&sandbox.path(""), "localhost");
        assert_eq!(sandbox.run(&["check"]).code, 0);
        let good = std::fs::read_to_string(sandbox.path("key.pem")).unwrap();
        let der = CertificateDer::from_pem_file(sandbox.path("cert.pem")).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        for (file, content, wanted) in [
            ("key.pem", other.as_bytes(), [&*key_key, "is not the certificate's key"]),
            ("key.pem", b"nonsense".as_slice(), [&key_key, "holds no private key"]),
            ("key.pem", b"", [&key_key, "holds no private key"]),
            ("cert.pem", good.as_bytes(), [&cert_key, "holds no certificate"]),
            ("cert.pem", &der, [&cert_key, "in PEM"]),
        ] {
            let before = std::fs::read(sandbox.path(file)).unwrap();
            std::fs::write(sandbox.path(file), content).unwrap();
            refused(&sandbox, &wanted);
            std::fs::write(sandbox.path(file), before).unwrap();
        }
        let one = Sandbox::with_config(&format!("[{listener}]\ntls_cert_file = \"cert.pem\"\n"));
        refused(&one, &[&cert_key, "without tls_key_file"]);
        let one = Sandbox::with_config(&format!("[{listener}]\ntls_key_file = \"key.pem\"\n"));
        refused(&one, &[&key_key, "without tls_cert_file"]);
    }
}

#[test]
fn a_sinks_certificates_are_looked_at_too_and_need_https() {
    let sink =
        |url: &str, more: &str| Sandbox::with_config(&format!("[sinks.b]\ntype = \"http\"\nurl = \"{url}\"\n{more}"));
    let refused = |sandbox: &Sandbox, key: &str| {
        let done = sandbox.run(&["check"]);
        assert!(
            done.code == 78 && done.stderr.starts_with(&format!("finhook: configuration: {key} ")),
            "{}",
            done.stderr
        );
    };
    let pair = "client_cert_file = \"cert.pem\"\nclient_key_file = \"key.pem\"\n";
    let good = sink("https://a/", &format!("{pair}ca_file = \"cert.pem\"\n"));
    refused(&good, "sinks.b.client_cert_file");
    renew(&good.path(""), "localhost");
    let shown = good.run(&["check"]);
    assert!(
        shown.code == 0 && shown.stdout.contains("client_key_file = \"key.pem\""),
        "{}{}",
        shown.stdout,
        shown.stderr
    );
    std::fs::write(good.path("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    refused(&good, "sinks.b.client_key_file");
    refused(&sink("https://a/", "client_key_file = \"key.pem\"\n"), "sinks.b.client_key_file");
    refused(&sink("https://a/", "ca_file = \"nothing.pem\"\n"), "sinks.b.ca_file");
    let plain = sink("http://a/", pair);
    renew(&plain.path(""), "localhost");
    refused(&plain, "sinks.b.url");
    assert_eq!(sink("https://a/", "enabled = false\nca_file = \"nothing.pem\"\n").run(&["check"]).code, 0, "off");
}

#[test]
fn a_key_that_every_user_can_read_is_warned_of() {
    // In a folder that others may enter; the test's own is private.
    let folder = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let sandbox =
        Sandbox::within(folder.path()).file("finhook.toml", settings("server")).var("FINHOOK_CONFIG", "finhook.toml");
    renew(folder.path(), "localhost");
    let rights =
        |mode| std::fs::set_permissions(folder.path().join("key.pem"), PermissionsExt::from_mode(mode)).unwrap();
    rights(0o644);
    let warned = sandbox.run(&["check"]).stderr;
    assert!(warned.contains("server.tls_key_file") && warned.contains("chmod o-r"), "{warned}");
    rights(0o600);
    assert!(!sandbox.run(&["check"]).stderr.contains("tls_key_file"));
}
