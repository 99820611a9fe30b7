//! grpc checks against a real server and against what is none.

mod servers;

use longshore_probes::{Check, Outcome, check};
use servers::*;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Request, Response, Status};

mod v1 {
    #![allow(clippy::all, clippy::unwrap_used, dead_code)]
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

use v1::health_server::{Health, HealthServer};

struct Server;

#[tonic::async_trait]
impl Health for Server {
    async fn check(&self, request: Request<v1::HealthCheckRequest>) -> Result<Response<v1::HealthCheckResponse>, Status> {
        let agent = request.metadata().get("user-agent").and_then(|a| a.to_str().ok()).unwrap_or_default().to_owned();
        let timed = request.metadata().contains_key("grpc-timeout");
        match request.into_inner().service.as_str() {
            "" => Ok(Response::new(v1::HealthCheckResponse { status: 1 })),
            "down" => Ok(Response::new(v1::HealthCheckResponse { status: 2 })),
            "odd" => Ok(Response::new(v1::HealthCheckResponse { status: 9 })),
            "agent" => Err(Status::internal(format!("{agent} {timed}"))),
            "late" => Err(Status::deadline_exceeded("too late")),
            "slow" => std::future::pending().await,
            _ => Err(Status::not_found("unknown service")),
        }
    }
}

async fn serve(routes: tonic::service::Routes) -> SocketAddr {
    let (listener, at) = listener("127.0.0.1:0").await;
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming));
    at
}

async fn health() -> SocketAddr {
    serve(tonic::service::Routes::new(HealthServer::new(Server))).await
}

async fn ask(at: SocketAddr, service: &str, timeout: Duration) -> Outcome {
    check::run(&Check::Grpc { host: at.ip(), port: at.port(), service: service.into() }, timeout).await
}

#[tokio::test]
async fn a_service_is_well_when_it_serves() {
    let at = health().await;
    assert_eq!(ask(at, "", LONG).await, Outcome::Success("service healthy".into()));
    for (service, want) in [
        ("down", "service unhealthy (responded with \"NOT_SERVING\")"),
        ("odd", "service unhealthy (responded with \"9\")"),
        ("who", "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
        ("late", "timeout: health rpc did not complete within 5s"),
        ("agent", "error: health rpc probe failed: rpc error: code = Internal desc = kube-probe/1.36 true"),
    ] {
        assert_eq!(ask(at, service, LONG).await, Outcome::Failure(want.into()), "{service}");
    }
}

#[tokio::test]
async fn a_server_without_health_is_told_so() {
    let at = serve(tonic::service::Routes::default()).await;
    let outcome = ask(at, "", LONG).await;
    let want = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ";
    assert!(outcome.text().starts_with(want), "{outcome:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_told_from_a_server_that_is_none() {
    let second = Duration::from_secs(1);
    let slow = ask(health().await, "slow", second).await;
    assert_eq!(slow, Outcome::Failure("timeout: health rpc did not complete within 1s".into()));
    let (silent, _) = scripted(|_| (Vec::new(), End::Hang)).await;
    let (plain, _) = scripted(|_| answer("200 OK", "", "")).await;
    for at in [silent, plain, nobody().await] {
        let want = format!("timeout: failed to connect service \"{at}\" within 1s: context deadline exceeded");
        assert_eq!(ask(at, "", second).await, Outcome::Failure(want));
    }
}

#[tokio::test]
async fn a_server_that_comes_up_within_the_time_is_met() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = socket.local_addr().unwrap();
    // Bound, so that the port stays ours, but refusing until it listens.
    let asked = tokio::spawn(ask(at, "", LONG));
    tokio::task::yield_now().await;
    assert!(!asked.is_finished());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(socket.listen(8).unwrap());
    tokio::spawn(tonic::transport::Server::builder().add_service(HealthServer::new(Server)).serve_with_incoming(incoming));
    assert_eq!(asked.await.unwrap(), Outcome::Success("service healthy".into()));
}

#[tokio::test]
async fn the_question_comes_in_one_frame_with_its_end() {
    let (listener, at) = listener("127.0.0.1:0").await;
    let asked = tokio::spawn(ask(at, "up", LONG));
    let (mut stream, _) = listener.accept().await.unwrap();
    // Settings of a server, so that it counts as one.
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == 0 {
            assert_eq!((head[4] & 1, &payload[5..]), (1, &b"\x0a\x02up"[..]), "{head:?} {payload:?}");
            break;
        }
    }
    drop(stream);
    let outcome = asked.await.unwrap();
    assert!(outcome.text().starts_with("error: health rpc probe failed: rpc error: code = "), "{outcome:?}");
}
