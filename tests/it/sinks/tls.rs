//! The relay over TLS: whom it trusts, and what it says when it does not.
//!
//! The certificates that a process trusts come from its environment, so these tests run in processes of their own.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use finhook::sink::{Fault, Outcome, Relay};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto};

use super::http::{failure, relay};
use super::{delivery, in_child, in_own_mounts};
use crate::support::receiver::Receiver;

const BODY: &str = "{\"event_name\":\"x\"}";

/// What is wrong with a certificate.
type Change = fn(&mut CertificateParams);

/// Runs the test again where the file `ca.pem` in a new directory is all that is trusted.
fn trusting(test: &str) -> Option<std::path::PathBuf> {
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("ca.pem");
    let mut command = Command::new("env");
    command.arg("--unset=SSL_CERT_DIR").arg(format!("SSL_CERT_FILE={}", pem.display()));
    // For those tests that make no authority of their own.
    let (certificate, _) = authority();
    write_pem(&pem, &certificate);
    in_child(&format!("sinks::tls::{test}"), directory.path(), command)
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(test);
}

fn authority() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the authority of the tests");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    (certificate, Issuer::new(params, key))
}

fn write_pem(path: &Path, certificate: &CertificateDer<'_>) {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let text = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    std::fs::write(path, text).unwrap();
}

/// A server for 127.0.0.1, with what `change` makes of its certificate.
async fn server(issuer: Option<&Issuer<'_, KeyPair>>, change: Change) -> Receiver {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    Receiver::start_tls(config).await
}

#[test]
fn a_certificate_of_an_authority_that_the_system_trusts_is_accepted_and_others_are_named() {
    let Some(directory) =
        trusting("a_certificate_of_an_authority_that_the_system_trusts_is_accepted_and_others_are_named")
    else {
        return;
    };
    let (certificate, issuer) = authority();
    write_pem(&directory.join("ca.pem"), &certificate);
    run(async {
        let good = server(Some(&issuer), |_| {}).await;
        assert_eq!(relay(&good.url()).deliver(delivery(BODY)).await, Outcome::Delivered);
        assert_eq!(good.received()[0].body, BODY);

        let changes: [(Change, &str); 3] = [
            (|params| params.not_after = date_time_ymd(2020, 1, 1), "has expired"),
            (|params| params.not_before = date_time_ymd(3000, 1, 1), "is not valid yet"),
            (|params| params.subject_alt_names.clear(), "is for another name"),
        ];
        for (change, words) in changes {
            let server = server(Some(&issuer), change).await;
            let failure = failure(relay(&server.url()).deliver(delivery(BODY)).await);
            assert_eq!(failure.fault, Fault::Unreachable);
            assert!(failure.error.starts_with("TLS: the certificate "), "{}", failure.error);
            assert!(failure.error.contains(words), "{}", failure.error);
            assert!(server.received().is_empty(), "nothing was sent");
        }
    });
}

/// Needs `unshare` and `mount` (util-linux), and to be root or allowed to make user namespaces.
#[test]
fn ca_certificates_crt_alone_is_enough_as_in_a_small_image() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = in_own_mounts("mount -t tmpfs tmpfs /etc/ssl && mkdir /etc/ssl/certs");
    command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
    let name = "sinks::tls::ca_certificates_crt_alone_is_enough_as_in_a_small_image";
    if in_child(name, directory.path(), command).is_none() {
        return;
    }
    let (certificate, issuer) = authority();
    write_pem(Path::new("/etc/ssl/certs/ca-certificates.crt"), &certificate);
    run(async {
        let server = server(Some(&issuer), |_| {}).await;
        assert_eq!(relay(&server.url()).deliver(delivery(BODY)).await, Outcome::Delivered);
    });
}

#[test]
fn a_self_signed_certificate_is_refused_and_named() {
    if trusting("a_self_signed_certificate_is_refused_and_named").is_none() {
        return;
    }
    run(async {
        let server = server(None, |_| {}).await;
        let failure = failure(relay(&server.url()).deliver(delivery(BODY)).await);
        assert_eq!(failure.fault, Fault::Unreachable);
        let expected = server.url().replace("https://", "TLS: the certificate of ").replace("/fin", " is self-signed");
        assert!(failure.error.starts_with(&expected), "{}", failure.error);
        assert!(server.received().is_empty(), "nothing was sent");
    });
}

#[test]
fn an_authority_made_anew_under_its_old_name_is_named() {
    if trusting("an_authority_made_anew_under_its_old_name_is_named").is_none() {
        return;
    }
    run(async {
        let (_, anew) = authority();
        let server = server(Some(&anew), |_| {}).await;
        let failure = failure(relay(&server.url()).deliver(delivery(BODY)).await);
        assert_eq!(failure.fault, Fault::Unreachable);
        assert!(failure.error.contains("install the authority's present certificate"), "{}", failure.error);
    });
}

#[test]
fn a_server_without_tls_behind_an_https_url_is_named() {
    if trusting("a_server_without_tls_behind_an_https_url_is_named").is_none() {
        return;
    }
    run(async {
        let server = Receiver::start().await;
        let failure = failure(relay(&server.url().replace("http", "https")).deliver(delivery(BODY)).await);
        assert_eq!(failure.fault, Fault::Unreachable);
        assert!(failure.error.contains("does not speak TLS; if it is plain HTTP"), "{}", failure.error);
        assert!(failure.error.ends_with("the URL must begin with http://"), "{}", failure.error);
    });
}

#[test]
fn what_keeps_a_relay_from_a_server_is_named_with_what_to_do() {
    if trusting("what_keeps_a_relay_from_a_server_is_named_with_what_to_do").is_none() {
        return;
    }
    run(async {
        let tls = server(None, |_| {}).await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (url, fault, words) in [
            (tls.url().replace("https", "http"), Fault::Transient, "if it wants TLS, the URL must begin with https://"),
            (format!("http://{closed}/"), Fault::Unreachable, "nothing listens there; check the port"),
            (
                "http://no-such-host.invalid/".to_owned(),
                Fault::Unreachable,
                "check the URL's host and this machine's DNS",
            ),
        ] {
            let failure = failure(relay(&url).deliver(delivery(BODY)).await);
            assert_eq!(failure.fault, fault, "{}", failure.error);
            assert!(failure.error.contains(words), "{}", failure.error);
            let host = url::Url::parse(&url).unwrap();
            assert!(failure.error.contains(host.host_str().unwrap()), "{}", failure.error);
        }
    });
}

#[test]
fn a_relay_without_tls_works_on_a_system_without_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("env");
    command.arg("--unset=SSL_CERT_DIR").arg(format!("SSL_CERT_FILE={}/none", directory.path().display()));
    let name = "sinks::tls::a_relay_without_tls_works_on_a_system_without_certificates";
    if in_child(name, directory.path(), command).is_none() {
        return;
    }
    run(async {
        let server = Receiver::start().await;
        assert_eq!(relay(&server.url()).deliver(delivery(BODY)).await, Outcome::Delivered);
    });
}

/// Mutual TLS: the sink wants to know who sends, and finhook takes another authority than the system's.
mod mutual {
    use std::sync::Arc;

    use rcgen::{CertificateParams, Issuer, KeyPair};
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::server::WebPkiClientVerifier;
    use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

    use super::authority;
    use crate::support::app::{TestApp, event};
    use crate::support::receiver::Receiver;
    use crate::support::wait::eventually;

    /// A server for 127.0.0.1 that takes clients of one authority only.
    async fn server(issuer: &Issuer<'_, KeyPair>, clients: &[u8]) -> Receiver {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(clients.to_vec().into()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        Receiver::start_tls(config).await
    }

    /// A client's certificate and key, in PEM.
    fn client(issuer: &Issuer<'_, KeyPair>) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["finhook".to_owned()]).unwrap();
        [params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem()]
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sink_gets_the_certificate_it_wants_and_a_renewed_one_without_a_restart() {
        let (ours, issuer) = authority();
        let (_, stranger) = authority();
        let server = server(&issuer, &ours).await;
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join("new"), text).unwrap();
            std::fs::rename(folder.path().join("new"), folder.path().join(name)).unwrap();
        };
        super::write_pem(&folder.path().join("ca.pem"), &ours);
        let [certificate, key] = client(&stranger);
        write("client.pem", &certificate);
        write("client.key", &key);
        let toml = format!(
            "[sinks.backend]\ntype = \"http\"\nurl = \"{}\"\nretry = {{ base = \"20ms\", cap = \"50ms\" }}\n\
             client_cert_file = \"DIR/client.pem\"\nclient_key_file = \"DIR/client.key\"\nca_file = \"DIR/ca.pem\"\n",
            server.url()
        );
        let app = TestApp::start_in(Arc::clone(&folder), &toml).await;
        app.accept(&event("fin_replied", "c", 1)).await;
        let error = async || {
            let (_, answer) = app.admin_get("/api/v1/sinks").await;
            answer["sinks"][0]["last_error"].as_str().unwrap_or_default().to_owned()
        };
        eventually("the sink refuses a stranger's certificate", async || !error().await.is_empty()).await;
        let said = error().await;
        assert!(said.contains("refused finhook's certificate"), "{said}");
        assert!(server.received().is_empty());

        let [certificate, key] = client(&issuer);
        write("client.key", &key);
        write("client.pem", &certificate);
        assert_eq!(server.wait_for(1).await.len(), 1);
        app.stop().await;
    }
}
