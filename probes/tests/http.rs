//! httpGet checks against servers of every behaviour that the rules name.

mod servers;

use longshore_probes::check::{self, http::hook};
use longshore_probes::{Check, HttpCheck, Outcome};
use servers::*;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn success(text: &str) -> Outcome {
    Outcome::Success(text.into())
}

fn failure(text: impl Into<String>) -> Outcome {
    Outcome::Failure(text.into())
}

/// What a check of `/x` at this server comes to.
async fn of(answer: (Vec<u8>, End)) -> (Outcome, SocketAddr) {
    let (at, _) = scripted(move |_| answer.clone()).await;
    (ask(&http(at, "/x")).await, at)
}

#[tokio::test]
async fn a_request_is_what_a_kubelet_sends() {
    let (at, heard) = scripted(|_| answer("200 OK", "", "fine")).await;
    assert_eq!(ask(&http(at, "/x y?a=b")).await, success("fine"));
    let want = format!("GET /x%20y?a=b HTTP/1.1\r\nHost: {at}\r\nUser-Agent: kube-probe/1.36\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    assert_eq!(*heard.lock().unwrap(), [want]);
}

#[tokio::test]
async fn headers_of_the_probe_are_all_sent() {
    let (at, heard) = scripted(|_| answer("200 OK", "", "")).await;
    let given = [("host", "example.com"), ("X-Many", "1"), ("x-many", "2"), ("ACCEPT", ""), ("User-Agent", "me")];
    let headers = given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    assert_eq!(ask(&HttpCheck { headers, ..http(at, "/") }).await, success(""));
    let want = "GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: me\r\nX-Many: 1\r\nX-Many: 2\r\nConnection: close\r\n\r\n";
    assert_eq!(*heard.lock().unwrap(), [want]);
}

#[tokio::test]
async fn statuses_from_200_to_399_are_well() {
    for (status, want) in [
        ("200 OK", success("body")),
        ("204 No Content", success("")),
        ("299 Odd", success("body")),
        ("300 Choices", Outcome::Warning("Probe terminated redirects, Response body: body".into())),
        ("302 Found", Outcome::Warning("Probe terminated redirects, Response body: body".into())),
        ("304 Not Modified", Outcome::Warning("Probe terminated redirects, Response body: ".into())),
        ("400 Bad", failure("HTTP probe failed with statuscode: 400")),
        ("500 Broken", failure("HTTP probe failed with statuscode: 500")),
        ("999 Odd", failure("HTTP probe failed with statuscode: 999")),
    ] {
        assert_eq!(of(answer(status, "", "body")).await.0, want, "{status}");
    }
}

#[tokio::test]
async fn bodies_are_read_up_to_ten_kibibytes() {
    for (length, want) in [(10_240, 10_240), (10_241, 10_240), (5_000_000, 10_240)] {
        let Outcome::Success(body) = of(answer("200 OK", "", &"x".repeat(length))).await.0 else { panic!() };
        assert_eq!(body.len(), want);
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(of((chunked.into(), End::Close)).await.0, success("abcde"));
    assert_eq!(of((b"HTTP/1.0 200 OK\r\n\r\nto the end".to_vec(), End::Close)).await.0, success("to the end"));
}

#[tokio::test]
async fn a_body_that_breaks_off_says_nothing_of_the_container() {
    let cut = |end| of((b"HTTP/1.1 500 Broken\r\nContent-Length: 9\r\n\r\nbut".to_vec(), end));
    assert_eq!(cut(End::Close).await.0, Outcome::Unreadable("unexpected EOF".into()));
    let (at, _) = scripted(|_| (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbut".to_vec(), End::Hang)).await;
    let outcome = check::run(&Check::Http(http(at, "/")), Duration::from_millis(200)).await;
    let want = "context deadline exceeded (Client.Timeout or context cancellation while reading body)";
    assert_eq!(outcome, Outcome::Unreadable(want.into()));
    assert_eq!(outcome.error_state(), Some("failure"));
}

#[tokio::test]
async fn failures_of_the_connection_read_as_from_go() {
    let at = nobody().await;
    assert_eq!(ask(&http(at, "/x")).await, failure(format!("Get \"http://{at}/x\": dial tcp {at}: connect: connection refused")));
    let (outcome, at) = of((Vec::new(), End::Close)).await;
    assert_eq!(outcome, failure(format!("Get \"http://{at}/x\": EOF")));
    let (outcome, at) = of((b"HTTP/1.1 20".to_vec(), End::Close)).await;
    let want = "net/http: HTTP/1.x transport connection broken: unexpected EOF";
    assert_eq!(outcome, failure(format!("Get \"http://{at}/x\": {want}")));
    let (outcome, at) = of((b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), End::Hang)).await;
    let want = "net/http: HTTP/1.x transport connection broken: malformed HTTP response \"SSH-2.0-OpenSSH_9.2\"";
    assert_eq!(outcome, failure(format!("Get \"http://{at}/x\": {want}")));
    let (outcome, at) = of((Vec::new(), End::Reset)).await;
    let text = outcome.text();
    assert!(text.starts_with(&format!("Get \"http://{at}/x\": read")), "{text}");
    assert!(text.ends_with("read: connection reset by peer"), "{text}");
    let nowhere = HttpCheck { host: "no-such-host.invalid".into(), ..http(at, "/") };
    let outcome = ask(&nowhere).await;
    assert!(outcome.text().ends_with("dial tcp: lookup no-such-host.invalid: no such host"), "{outcome:?}");
}

#[tokio::test]
async fn the_time_limit_covers_everything() {
    let (silent, _) = scripted(|_| (Vec::new(), End::Hang)).await;
    let (endless, _) = scripted(|_| (b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec(), End::Hang)).await;
    for (at, https) in [(silent, false), (endless, false), (silent, true)] {
        let began = Instant::now();
        let check = HttpCheck { https, ..http(at, "/x") };
        let outcome = check::run(&Check::Http(check), Duration::from_millis(200)).await;
        let scheme = if https { "https" } else { "http" };
        let want = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        assert_eq!(outcome, failure(format!("Get \"{scheme}://{at}/x\": {want}")));
        assert!(began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn addresses_of_ipv6_are_asked_in_brackets() {
    let (at, heard) = scripted_on("[::1]:0", |_| answer("200 OK", "", "six")).await;
    assert_eq!(ask(&http(at, "/")).await, success("six"));
    assert!(heard.lock().unwrap()[0].contains(&format!("Host: [::1]:{}\r\n", at.port())));
    let (closed, port) = (listener("[::1]:0").await.1, "/x");
    assert_eq!(
        ask(&http(closed, port)).await,
        failure(format!("Get \"http://{closed}/x\": dial tcp {closed}: connect: connection refused"))
    );
}

#[tokio::test]
async fn names_are_looked_up() {
    let (at, heard) = scripted(|_| answer("200 OK", "", "named")).await;
    assert_eq!(ask(&HttpCheck { host: "localhost".into(), ..http(at, "/") }).await, success("named"));
    assert!(heard.lock().unwrap()[0].contains(&format!("Host: localhost:{}\r\n", at.port())));
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host() {
    for code in [301, 302, 303, 307, 308] {
        let (at, heard) = scripted(move |request| match request.split(' ').nth(1) {
            Some("/a/start") => answer(&format!("{code} Moved"), "Location: ../end?q\r\n", ""),
            _ => answer("200 OK", "", "there"),
        })
        .await;
        let headers = vec![("X-Kept".to_owned(), "yes".to_owned()), ("Host".to_owned(), "mine".to_owned())];
        assert_eq!(ask(&HttpCheck { headers, ..http(at, "/a/start") }).await, success("there"));
        let second = heard.lock().unwrap()[1].clone();
        assert!(second.starts_with("GET /end?q HTTP/1.1\r\nHost: mine\r\n"), "{second}");
        assert!(second.contains("X-Kept: yes\r\n") && second.contains(&format!("Referer: http://{at}/a/start\r\n")), "{second}");
    }
    // Another port of the same host is the same host.
    let (end, _) = scripted(|_| answer("404 Nowhere", "", "")).await;
    let (outcome, _) = of(answer("302 Found", &format!("Location: http://{end}/\r\n"), "")).await;
    assert_eq!(outcome, failure("HTTP probe failed with statuscode: 404"));
    let end = secure(&[]).await;
    let (outcome, _) = of(answer("302 Found", &format!("Location: https://{end}/s\r\n"), "")).await;
    assert_eq!(outcome, success(&format!("HTTP/1.1 /s {end} kube-probe/1.36")));
}

#[tokio::test]
async fn redirects_to_another_host_are_a_warning() {
    let (outcome, _) = of(answer("302 Found", "Location: http://localhost:1/\r\n", "over there")).await;
    assert_eq!(outcome, Outcome::Warning("Probe terminated redirects, Response body: over there".into()));
}

#[tokio::test]
async fn ten_requests_are_enough() {
    let (at, heard) = scripted(|_| answer("302 Found", "Location: /again\r\n", "")).await;
    assert_eq!(ask(&http(at, "/")).await, failure("Get \"/again\": stopped after 10 redirects"));
    assert_eq!(heard.lock().unwrap().len(), 10);
    let (outcome, _) = of(answer("302 Found", "Location: /%zz\r\n", "")).await;
    assert!(outcome.text().starts_with("Get \"/%zz\": failed to parse Location header \"/%zz\""), "{outcome:?}");
}

#[tokio::test]
async fn tls_is_spoken_to_anyone_in_either_version_of_http() {
    for (alpn, version) in [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")] {
        let at = secure(alpn).await;
        assert_eq!(ask(&https(at, "/p")).await, success(&format!("{version} /p {at} kube-probe/1.36")));
        let headers = vec![("Host".to_owned(), "example.com".to_owned())];
        let check = HttpCheck { headers, ..https(at, "/p") };
        assert_eq!(ask(&check).await, success(&format!("{version} /p example.com kube-probe/1.36")));
    }
}

#[tokio::test]
async fn a_plain_server_is_told_from_a_secure_one() {
    let (at, _) = scripted(|_| answer("400 Bad", "", "")).await;
    assert_eq!(ask(&https(at, "/")).await, failure(format!("Get \"https://{at}/\": http: server gave HTTP response to HTTPS client")));
    let (at, _) = scripted(|_| (Vec::new(), End::Close)).await;
    assert_eq!(ask(&https(at, "/")).await, failure(format!("Get \"https://{at}/\": EOF")));
    let (at, _) = scripted(|_| (b"no TLS at all".to_vec(), End::Close)).await;
    let want = format!("Get \"https://{at}/\": tls: first record does not look like a TLS handshake");
    assert_eq!(ask(&https(at, "/")).await, failure(want));
}

#[tokio::test]
async fn a_hook_fails_on_transport_errors_alone() {
    let (at, heard) = scripted(|_| answer("500 Broken", "", "")).await;
    assert_eq!(hook(&http(at, "/")).await, Ok(None));
    assert!(heard.lock().unwrap()[0].contains("User-Agent: kube-lifecycle/1.36\r\n"));
    assert_eq!(hook(&https(secure(&[]).await, "/")).await, Ok(None));
    let at = nobody().await;
    assert_eq!(hook(&http(at, "/")).await, Err(format!("Get \"http://{at}/\": dial tcp {at}: connect: connection refused")));
}

#[tokio::test]
async fn a_secure_hook_falls_back_to_plain_without_its_credentials() {
    let (at, heard) = scripted(|_| answer("400 Bad", "", "")).await;
    let headers = vec![("authorization".to_owned(), "secret".to_owned()), ("X-Other".to_owned(), "sent".to_owned())];
    assert_eq!(hook(&HttpCheck { headers, ..https(at, "/stop") }).await, Ok(Some(at.to_string())));
    let heard = heard.lock().unwrap();
    assert!(heard[1].starts_with("GET /stop HTTP/1.1") && heard[1].contains("X-Other: sent\r\n"), "{}", heard[1]);
    assert!(!heard[1].contains("secret"), "{}", heard[1]);
}
