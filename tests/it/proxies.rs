//! finhook behind the proxies that people have, set up as they set them up: what these send, what they change, and how finhook
//! is restarted behind one without a failed request. (The files in `deploy/` have tests of their own.)

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use finhook::verify::sign;

use crate::support::SECRET;
use crate::support::process::{Client, Finhook, Place, body, wait_for_archive};
use crate::support::raw::Raw;
use crate::support::server::{Server, free_address, tools};
use crate::support::wait::{eventually, until};

/// All that comes, so that nothing which was acknowledged can be missing.
const ARCHIVE: &str = "[sinks.archive]\ntype = \"file\"\npath = \"archive/events.ndjson\"\n";

/// finhook on a port that stays, with a proxy in front of it.
struct Behind {
    place: Place,
    /// The proxy's.
    address: SocketAddr,
    finhook: Option<Finhook>,
    _proxy: Server,
}

impl Behind {
    /// `proxy` makes the command from finhook's address, the proxy's, and a folder.
    fn start(proxy: impl FnOnce(SocketAddr, SocketAddr, &Path) -> Command) -> Self {
        let (own, address) = (free_address(), free_address());
        let place = Place::temporary(ARCHIVE).var("SERVER__BIND", &own.to_string());
        let finhook = place.start();
        let folder = place.path("proxy");
        fs::create_dir(&folder).unwrap();
        let proxy = Server::start(&mut proxy(own, address, &folder), &folder.join("log"));
        until("the proxy listens", || TcpStream::connect(address).is_ok());
        Self { place, address, finhook: Some(finhook), _proxy: proxy }
    }

    fn haproxy(backend: &str) -> Self {
        Self::start(|own, address, folder| {
            let configuration = folder.join("haproxy.cfg");
            let text = format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n timeout queue 30s\n\
                 frontend f\n bind {address}\n default_backend b\nbackend b\n{}",
                backend.replace("FINHOOK", &own.to_string())
            );
            fs::write(&configuration, text).unwrap();
            let mut haproxy = Command::new("haproxy");
            // Not master and worker: one process, which ends with the test. Its libraries are unpacked beside it.
            haproxy.args(["-db", "-f"]).arg(configuration);
            let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
            haproxy.env("LD_LIBRARY_PATH", tools().join(libraries));
            haproxy
        })
    }

    fn nginx(location: &str) -> Self {
        Self::start(|own, address, folder| {
            let path = |name: &str| folder.join(name).display().to_string();
            let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
            let temp: String = temp.map(|kind| format!("{kind}_temp_path {};\n", path(kind))).concat();
            let text = format!(
                "daemon off;\nmaster_process off;\nuser root;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{temp}\
                 upstream finhook {{\nserver {own};\nkeepalive 8;\n}}\n\
                 server {{\nlisten {address};\nlocation / {{\nproxy_pass http://finhook;\n{location}\n}}\n}}\n}}\n",
                path("pid")
            );
            fs::write(folder.join("nginx.conf"), text).unwrap();
            let mut nginx = Command::new("nginx");
            nginx.args(["-e", "stderr", "-c"]).arg(folder.join("nginx.conf"));
            nginx
        })
    }

    /// Posts each way in which clients send a body, and checks that all of it is delivered, to the byte.
    async fn takes_whatever_clients_send(&self) {
        let mut ids = Vec::new();
        // One connection for many requests.
        let mut kept = Client::new(self.address);
        for number in 0..20 {
            ids.push(kept.post(body("kept", number, 0)).unwrap().id());
        }
        // Larger than a proxy keeps in memory.
        ids.push(kept.post(body("large", 0, 200_000)).unwrap().id());
        ids.push(self.chunked(&body("chunked", 0, 0)).await);
        ids.push(self.expecting_100(&body("expecting", 0, 50_000)).await);
        // Many connections, each for one request, as by a client that keeps none.
        for number in 0..20 {
            ids.push(Client::new(self.address).post(body("single", number, 0)).unwrap().id());
        }
        let forged = format!(
            "POST /fin HTTP/1.1\r\nHost: a\r\nX-Fin-Agent-API-Webhook-Signature: {}\r\nContent-Length: 2\r\n\r\n",
            sign(&SECRET.into(), b"something else")
        );
        assert_eq!(Client::new(self.address).request(&forged, b"{}").unwrap().status, 401);

        wait_for_archive(&self.place.path("archive/events.ndjson"), &ids);
        // The requests were told from each other: none was read into the next one.
        assert_eq!(ids.len(), 43);
    }

    async fn chunked(&self, body: &str) -> String {
        let mut raw = Raw::connect(self.address).await;
        raw.send(head(body, "Transfer-Encoding: chunked\r\n")).await;
        for piece in body.as_bytes().chunks(50) {
            raw.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).await;
        }
        raw.send("0\r\n\r\n").await;
        accepted(&mut raw).await
    }

    async fn expecting_100(&self, body: &str) -> String {
        let mut raw = Raw::connect(self.address).await;
        raw.send(head(body, &format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len()))).await;
        assert_eq!(raw.head().await.status, 100, "the client waits for it before it sends the body");
        raw.send(body).await;
        accepted(&mut raw).await
    }
}

/// The head of a request with this body, whose length `length` tells.
fn head(body: &str, length: &str) -> String {
    let signature = sign(&SECRET.into(), body.as_bytes());
    format!(
        "POST /fin HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
         X-Fin-Agent-API-Webhook-Signature: {signature}\r\n{length}\r\n"
    )
}

async fn accepted(raw: &mut Raw) -> String {
    let reply = raw.reply().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str::<serde_json::Value>(reply.text()).unwrap()["id"].as_str().unwrap().to_owned()
}

/// The check without options sends `HEAD /fin HTTP/1.0`, with no line more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_with_its_plain_health_check_keeps_finhook_in_service() {
    let behind = Behind::haproxy(
        " stats enable\n stats uri /its-own\n option httpchk HEAD /fin\n server s FINHOOK check inter 50ms fall 1 rise 1\n",
    );
    // HAProxy's own word on its server, by the names of its columns.
    let says = async |column: &str| {
        let mut raw = Raw::connect(behind.address).await;
        raw.send("GET /its-own;csv HTTP/1.0\r\n\r\n").await;
        let answer = String::from_utf8(raw.rest().await).unwrap();
        let csv = answer.lines().skip_while(|line| !line.starts_with("# pxname"));
        let rows: Vec<Vec<&str>> = csv.map(|line| line.split(',').collect()).collect();
        let at = rows[0].iter().position(|name| *name == column).unwrap();
        rows.iter().find(|row| row[..2] == ["b", "s"]).unwrap()[at].to_owned()
    };

    eventually("it has checked", async || says("check_status").await == "L7OK").await;

    behind.takes_whatever_clients_send().await;
    assert_eq!((says("status").await.as_str(), says("chkfail").await.as_str()), ("UP", "0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_behind_haproxy_that_retries_fails_no_request() {
    // It tries the same server again each second; a server that is checked would be taken out of service instead.
    let mut behind = Behind::haproxy(
        " retries 10\n retry-on conn-failure empty-response response-timeout\n http-reuse safe\n server s FINHOOK\n",
    );
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (address, place) = (behind.address, &behind.place);
    let mut finhook = behind.finhook.take();
    let ids: Vec<String> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let (over, sent) = (&over, &sent);
                scope.spawn(move || {
                    let (mut client, mut ids) = (Client::new(address), Vec::new());
                    while !over.load(Ordering::SeqCst) {
                        ids.push(client.post(body(&format!("sender {sender}"), ids.len() as u64, 0)).unwrap().id());
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                    ids
                })
            })
            .collect();
        let more = |count: u64| {
            let from = sent.load(Ordering::SeqCst);
            until("more is acknowledged", || sent.load(Ordering::SeqCst) >= from + count);
        };
        more(200);
        for _ in 0..3 {
            let ended = finhook.take().unwrap().stop();
            assert!(ended.status.success(), "{ended:?}");
            finhook = Some(place.start());
            more(200);
        }
        over.store(true, Ordering::SeqCst);
        senders.into_iter().flat_map(|sender| sender.join().unwrap()).collect()
    });

    wait_for_archive(&place.path("archive/events.ndjson"), &ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_as_it_comes_speaks_http_1_0_and_buffers() {
    Behind::nginx("").takes_whatever_clients_send().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_with_http_1_0_and_without_buffering() {
    Behind::nginx("proxy_request_buffering off;\nproxy_buffering off;").takes_whatever_clients_send().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_with_kept_connections_and_buffering() {
    Behind::nginx("proxy_http_version 1.1;\nproxy_set_header Connection \"\";").takes_whatever_clients_send().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_with_kept_connections_and_without_buffering_passes_chunks_on() {
    let behind = Behind::nginx(
        "proxy_http_version 1.1;\nproxy_set_header Connection \"\";\nproxy_request_buffering off;\nproxy_buffering off;",
    );
    behind.takes_whatever_clients_send().await;
}
