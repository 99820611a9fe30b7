//! The program inside the test pods: one static file, many behaviours, chosen by the first argument.
//!
//! It depends on nothing but std so that `build.rs` can compile it with plain `rustc`. As process 1
//! of a container it would ignore TERM, so every behaviour but `ignore-term` installs a handler.

mod fetch;
mod grpc;
mod http;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

const USAGE: &str = "usage: workload COMMAND
  serve-http [PORT]             8080: /healthz /unhealthy /healthy /env /hostname /client /pulse /redirect?to=
  tcp-echo [PORT]               7: sends back what it gets; the line `whoami` gets hostname and peer
  udp-echo [PORT]               7: as tcp-echo, per datagram
  grpc-health [PORT]            50051: grpc.health.v1.Health/Check; service `down` is not serving
  eat-memory MIB                takes and touches the memory, prints `ate`, holds it
  spin                          burns one CPU
  exit CODE [SECONDS]           ends with CODE after SECONDS
  ignore-term                   cannot be asked to leave
  sleep                         waits for TERM
  fetch URL                     prints what http://… serves; fails unless it is a success
  resolve NAME                  prints the addresses of a name
  factorial N                   prints N!
  write-termination-message TEXT [FILE] [CODE]";

const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn _exit(code: i32) -> !;
}

extern "C" fn leave(_: i32) {
    // SAFETY: `_exit` is async-signal-safe.
    unsafe { _exit(0) }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    let number = |at: usize, default: u64| argument(at).map_or(default, |text| text.parse().unwrap_or_else(|_| usage(text)));
    // SAFETY: `leave` has the signature of a handler and calls nothing unsafe for signals.
    unsafe { signal(SIGTERM, leave as extern "C" fn(i32) as usize) };
    match argument(0) {
        Some("serve-http") => http::serve(port(number(1, 8080))),
        Some("tcp-echo") => tcp_echo(port(number(1, 7))),
        Some("udp-echo") => udp_echo(port(number(1, 7))),
        Some("grpc-health") => grpc::serve(port(number(1, 50051))),
        Some("eat-memory") => eat_memory(number(1, 0) as usize),
        Some("spin") => loop {
            std::hint::spin_loop();
        },
        Some("exit") => {
            std::thread::sleep(Duration::from_secs(number(2, 0)));
            std::process::exit(number(1, 0) as i32)
        }
        Some("ignore-term") => {
            // SAFETY: ignoring a signal installs no code.
            unsafe { signal(SIGTERM, SIG_IGN) };
            hold()
        }
        Some("sleep") => hold(),
        Some("fetch") => finish(fetch::fetch(argument(1).unwrap_or_default())),
        Some("resolve") => finish(fetch::resolve(argument(1).unwrap_or_default())),
        Some("factorial") => println!("{}", factorial(number(1, 0))),
        Some("write-termination-message") => {
            let file = argument(2).unwrap_or("/dev/termination-log");
            std::fs::write(file, argument(1).unwrap_or_default()).expect("write the message");
            std::process::exit(number(3, 0) as i32)
        }
        other => usage(other.unwrap_or("nothing")),
    }
}

fn finish(outcome: std::io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("workload: {error}");
        std::process::exit(1)
    }
}

fn usage<T>(got: &str) -> T {
    eprintln!("workload: cannot make sense of {got}\n{USAGE}");
    std::process::exit(64)
}

fn port(number: u64) -> u16 {
    u16::try_from(number).unwrap_or_else(|_| usage("a port above 65535"))
}

fn hold() {
    loop {
        std::thread::park();
    }
}

/// Both families on one socket; IPv4 alone where the kernel has no IPv6.
pub fn listen(port: u16) -> TcpListener {
    TcpListener::bind(("::", port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .unwrap_or_else(|e| panic!("cannot listen on port {port}: {e}"))
}

pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// A client as it calls itself: an IPv4 peer of a socket for both families comes in IPv6's clothes.
pub fn client(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}

fn answer(request: &[u8], peer: &str) -> Vec<u8> {
    match request.trim_ascii_end() {
        b"whoami" => format!("{} {peer}\n", hostname()).into_bytes(),
        _ => request.to_vec(),
    }
}

fn tcp_echo(port: u16) {
    for stream in listen(port).incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let peer = stream.peer_addr().map_or_else(|_| String::new(), client);
            let mut buffer = [0; 65536];
            while let Ok(read @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&answer(&buffer[..read], &peer)).is_err() {
                    break;
                }
            }
        });
    }
}

fn udp_echo(port: u16) {
    let socket = UdpSocket::bind(("::", port))
        .or_else(|_| UdpSocket::bind(("0.0.0.0", port)))
        .unwrap_or_else(|e| panic!("cannot bind UDP port {port}: {e}"));
    let mut buffer = [0; 65536];
    loop {
        let Ok((read, peer)) = socket.recv_from(&mut buffer) else { continue };
        // A reply that cannot be sent is a lost datagram, which UDP allows.
        socket.send_to(&answer(&buffer[..read], &client(peer)), peer).ok();
    }
}

fn eat_memory(mebibytes: usize) {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mebibytes {
        // Ones, not zeroes: untouched zero pages cost nothing.
        eaten.push(std::hint::black_box(vec![1; 1 << 20]));
    }
    println!("ate {mebibytes} MiB");
    std::io::stdout().flush().ok();
    hold();
    drop(eaten);
}

/// Decimal digits of n!, by school arithmetic in base 10^9.
fn factorial(n: u64) -> String {
    const BASE: u64 = 1_000_000_000;
    let mut digits = vec![1u64];
    for factor in 2..=n {
        let mut carry = 0;
        for digit in &mut digits {
            let product = *digit * factor + carry;
            *digit = product % BASE;
            carry = product / BASE;
        }
        while carry > 0 {
            digits.push(carry % BASE);
            carry /= BASE;
        }
    }
    let (last, rest) = digits.split_last().expect("starts with one digit");
    rest.iter().rev().fold(last.to_string(), |text, digit| text + &format!("{digit:09}"))
}
