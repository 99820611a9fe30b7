//! What went wrong elsewhere, by name.

use super::lab::{Port, Who, free, nobody, talk, token, with_port};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use longshore::port::route::TABLE;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn upgrade(path: &str, protocol: &str) -> Request<Empty<Bytes>> {
    let r = Request::builder().method("GET").uri(path).header("host", "node").header("connection", "Upgrade");
    let r = r.header("upgrade", "websocket").header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    r.header("sec-websocket-protocol", protocol).body(Empty::new()).unwrap()
}

/// `get nodes/proxy` was enough to run commands, since a WebSocket begins with a GET.
#[test]
fn reading_rights_do_not_run_commands_through_a_websocket() {
    with_port(
        |_| {},
        async |port| {
            let who = port.member("monitor", &["proxies"]);
            for path in
                ["/exec/default/web/main?command=id&output=1", "/attach/default/web/main?output=1", "/portForward/default/web?port=80"]
            {
                let stream = port.connect(who.certificate.as_ref(), "http/1.1").await.unwrap();
                let answer = talk(stream, upgrade(path, "v4.channel.k8s.io")).await.unwrap();
                assert_eq!(answer.status, 403, "{path}");
                assert!(answer.text().contains("verb=create"), "{}", answer.text());
            }
            assert_eq!(port.get(&who, "/containerLogs/default/web/main").await.status, 400, "it may read");
        },
    );
}

/// A browser's token comes as a protocol; it is one like any other, and goes no further.
#[test]
fn a_token_in_a_protocol_counts_as_in_the_header() {
    with_port(
        |_| {},
        async |port| {
            for (token, told) in [("t-admin", 500), ("t-reader", 403), ("t-wrong", 401)] {
                let protocol = format!("base64url.bearer.authorization.k8s.io.{}, v4.channel.k8s.io", URL_SAFE_NO_PAD.encode(token));
                let stream = port.connect(None, "http/1.1").await.unwrap();
                let answer = talk(stream, upgrade("/exec/default/web/main?command=id&output=1", &protocol)).await.unwrap();
                assert_eq!(answer.status, told, "{token}: {}", answer.text());
            }
        },
    );
}

async fn plain(port: u16, method: &str, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let answer = talk(stream, nobody().request(method, path)).await.unwrap();
    (answer.status, answer.text())
}

fn spell(path: &str) -> String {
    let filled = path.replace("{namespace}", "default").replace("{pod}", "web").replace("{uid}", "u-1").replace("{container}", "main");
    format!("/{}", filled.trim_end_matches("/*"))
}

/// CVE-2025-0426: checkpoints could be made through the read-only port, without credentials, until the disk was full.
#[test]
fn the_read_only_port_reads_and_nothing_else() {
    let read_only = free();
    with_port(
        |c| c.read_only_port = read_only,
        async |_| {
            for row in TABLE {
                let open = row.switch == longshore::port::route::Switch::Open;
                for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
                    let (status, text) = plain(read_only, method, &spell(row.path)).await;
                    let want = if !open {
                        404
                    } else if method == "GET" {
                        200
                    } else {
                        405
                    };
                    assert_eq!(status, want, "{method} {}: {text}", row.path);
                }
            }
        },
    );
}

/// Nobody has to know that the read-only port is not there unless it is asked for.
#[test]
fn there_is_no_read_only_port_by_default() {
    assert_eq!(longshore::port::PortConfig::default().read_only(), None);
}

/// CVE-2019-11248: profiles were to be had from the health port.
#[test]
fn the_health_port_tells_health_and_nothing_else() {
    let health = free();
    with_port(
        |c| c.healthz_port = health,
        async |_| {
            assert_eq!(plain(health, "GET", "/healthz").await, (200, "ok".into()));
            assert_eq!(plain(health, "GET", "/healthz/syncloop").await, (200, "ok".into()));
            let (_, text) = plain(health, "GET", "/healthz?verbose").await;
            assert_eq!(text, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n");
            for row in TABLE.iter().filter(|r| !r.path.starts_with("healthz")) {
                for method in row.methods {
                    assert_eq!(plain(health, method, &spell(row.path)).await.0, 404, "{}", row.path);
                }
            }
            assert_eq!(plain(health, "POST", "/healthz").await.0, 404);
        },
    );
}

/// CVE-2020-8551: nobody who is not known gets to hold more than a little of the node.
#[test]
fn connections_of_strangers_make_room_for_those_who_can_say_who_they_are() {
    with_port(
        |_| {},
        async |port| {
            let member = port.member("bob", &["admins"]);
            let kept = port.connect(member.certificate.as_ref(), "http/1.1").await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(kept)).await.unwrap();
            tokio::task::spawn_local(connection);
            assert_eq!(sender.send_request(member.request("GET", "/metrics/slis")).await.unwrap().status(), 200);
            // Some say nothing at all, some shake hands and say nothing.
            let mut silent = Vec::new();
            let mut polite = Vec::new();
            for i in 0..300 {
                silent.push(TcpStream::connect(port.address).await.unwrap());
                if i % 10 == 0 {
                    polite.push(port.connect(None, "http/1.1").await.unwrap());
                }
            }
            assert_eq!(port.get(&token("t-admin"), "/pods").await.status, 200, "a new one is let in");
            sender.ready().await.unwrap();
            assert_eq!(sender.send_request(member.request("GET", "/metrics/slis")).await.unwrap().status(), 200, "who is known stays");
            // The oldest were cut.
            let mut first = silent.swap_remove(0);
            assert_eq!(first.read(&mut [0; 1]).await.unwrap_or(0), 0);
        },
    );
}

#[test]
fn a_head_without_end_is_refused() {
    with_port(
        |_| {},
        async |port| {
            let mut stream = port.connect(None, "http/1.1").await.unwrap();
            let mut sent = 0usize;
            let _ = stream.write_all(b"GET /pods HTTP/1.1\r\nhost: node\r\n").await;
            // Until it has heard enough; megabytes would mean that it never has.
            while sent < 4 << 20 && stream.write_all(format!("x-{sent}: {}\r\n", "y".repeat(1000)).as_bytes()).await.is_ok() {
                sent += 1000;
            }
            assert!(sent < 4 << 20);
            assert_eq!(port.get(&token("t-admin"), "/pods").await.status, 200);
        },
    );
}

/// A body is not read before it is known whose it is, and then only where there is a use for it.
#[test]
fn nobody_is_listened_to_at_length() {
    with_port(
        |_| {},
        async |port| {
            let mut stream = port.connect(None, "http/1.1").await.unwrap();
            stream.write_all(b"POST /run/default/web/main HTTP/1.1\r\nhost: node\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
            let mut head = vec![0; 12];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(head, b"HTTP/1.1 401");
        },
    );
}

/// HTTP/2 carries many requests at once; one that nobody knows yet gets to have few under way.
#[test]
fn a_stranger_has_few_requests_under_way() {
    with_port(
        |_| {},
        async |port| {
            port.staff.slow.set(true);
            let stream = port.connect(None, "h2").await.unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let (sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
            tokio::task::spawn_local(connection);
            let (to, mut told) = tokio::sync::mpsc::unbounded_channel();
            for i in 0..20 {
                let guess: &'static str = Box::leak(format!("guess-{i}").into_boxed_str());
                let mut request = token(guess).request("GET", "/pods");
                *request.uri_mut() = "https://node/pods".parse().unwrap();
                let (mut sender, to) = (sender.clone(), to.clone());
                tokio::task::spawn_local(async move {
                    let answer = sender.send_request(request).await;
                    let _ = to.send(answer.map_or(0, |a| a.status().as_u16()));
                });
            }
            for _ in 0..12 {
                assert_eq!(told.recv().await, Some(429));
            }
            assert_eq!(port.staff.token_questions.get(), 8);
            // Others are answered meanwhile.
            assert_eq!(port.get(&port.member("bob", &["admins"]), "/pods").await.status, 200);
        },
    );
}

/// Guesses at tokens cost others nothing: each is one bounded entry, and asked about once.
#[test]
fn guesses_do_not_push_out_who_is_known() {
    with_port(
        |_| {},
        async |port: &Port| {
            assert_eq!(port.get(&token("t-admin"), "/metrics/slis").await.status, 200);
            let stream = port.connect(None, "http/1.1").await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
            tokio::task::spawn_local(connection);
            for i in 0..3000 {
                let guess: &'static str = Box::leak(format!("guess-{i}").into_boxed_str());
                sender.ready().await.unwrap();
                let answer = sender.send_request(Who { token: Some(guess), ..Who::default() }.request("GET", "/pods")).await.unwrap();
                assert_eq!(answer.status(), 401);
                http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
            }
            let before = port.staff.token_questions.get();
            assert_eq!(port.get(&token("t-admin"), "/metrics/slis").await.status, 200);
            assert_eq!(port.staff.token_questions.get(), before, "the admin is known still");
        },
    );
}

/// Paths that mean one thing to who allows and another to who answers.
#[test]
fn no_spelling_of_a_path_gets_around_its_permission() {
    with_port(
        |_| {},
        async |port| {
            for path in
                ["/metrics/../configz", "/pods/../logs/", "/healthz/%2e%2e/configz", "/metrics%2f..%2fconfigz", "/pods//..//configz"]
            {
                let answer = port.get(&token("t-reader"), path).await;
                assert!([403, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
            }
            for path in ["/logs/../pki/ca.key", "/logs/%2e%2e/pki/ca.key", "/logs/..%2fpki%2fca.key"] {
                let answer = port.get(&token("t-admin"), path).await;
                assert_eq!(answer.status, 404, "{path}: {}", answer.text());
            }
        },
    );
}
