//! What a check costs: its time on one thread, and its CPU beside a server on another thread.

use longshore_probes::{Check, HttpCheck, Outcome, check};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use tokio::runtime::Runtime;

fn main() {
    let at = serve();
    let runtime = runtime();
    for (name, check) in [("http", http(at)), ("tcp", tcp(at))] {
        const MANY: u32 = 1000;
        let before = cpu();
        for _ in 0..MANY {
            once(&runtime, &check);
        }
        println!("{name}: {:?} of CPU for {MANY} checks, {:?} each", cpu() - before, (cpu() - before) / MANY);
    }
    divan::main();
}

/// CPU of this thread.
fn cpu() -> Duration {
    let u = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).expect("a thread has a usage");
    let micros = [u.user_time(), u.system_time()].map(|t| t.tv_sec() * 1_000_000 + t.tv_usec());
    Duration::from_micros(u64::try_from(micros[0] + micros[1]).expect("time is positive"))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn once(runtime: &Runtime, check: &Check) {
    let outcome = runtime.block_on(check::run(check, Duration::from_secs(5)));
    assert!(matches!(outcome, Outcome::Success(_)), "{outcome:?}");
}

fn http(at: SocketAddr) -> Check {
    let headers = vec![("X-Pulse".to_owned(), "yes".to_owned())];
    Check::Http(HttpCheck { https: false, host: at.ip().to_string(), port: at.port(), path: "/healthz".into(), headers })
}

fn tcp(at: SocketAddr) -> Check {
    Check::Tcp { host: at.ip().to_string(), port: at.port() }
}

/// Answers every connection on a thread of its own.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut buffer = [0; 1024];
            if matches!(stream.read(&mut buffer), Ok(1..)) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
            }
        }
    });
    at
}

#[divan::bench]
fn http_check(bencher: divan::Bencher) {
    let (check, runtime) = (http(serve()), runtime());
    bencher.bench_local(|| once(&runtime, &check));
}

#[divan::bench]
fn tcp_check(bencher: divan::Bencher) {
    let (check, runtime) = (tcp(serve()), runtime());
    bencher.bench_local(|| once(&runtime, &check));
}
