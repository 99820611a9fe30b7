//! The client, and the clock that runs until its connection reaches where it should.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::Linger};

use super::contender::Contender;
use super::network::{Network, PORT};
use super::services::{Change, SERVICE_PORT, Services, vip};

const PATIENCE: Duration = Duration::from_secs(2);
/// Before there are rules nobody answers: asking again is quicker than waiting for TCP's second attempt.
const IMPATIENCE: Duration = Duration::from_millis(20);
/// A contender that needs longer for all services is given up on.
const COLD: Duration = Duration::from_secs(600);
/// The same for one change.
const CHANGE: Duration = Duration::from_secs(120);

pub struct Client<'a> {
    network: &'a Network,
}

/// Connects and asks which endpoint was reached. The time is that of `connect()` alone.
fn ask(to: SocketAddr, patience: Duration) -> io::Result<(Ipv4Addr, Duration)> {
    let began = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    let took = began.elapsed();
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reached = [0; 4];
    stream.read_exact(&mut reached)?;
    // Closed by a reset: nothing lingers, however many there are.
    let _ = setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 });
    Ok((reached.into(), took))
}

fn service(index: usize) -> SocketAddr {
    SocketAddr::from((vip(index), SERVICE_PORT))
}

impl<'a> Client<'a> {
    pub fn new(network: &'a Network) -> Client<'a> {
        Client { network }
    }

    /// Until services from the first to the last answer.
    pub fn wait_until_all_answer(&self, services: &Services, contender: &mut Contender) -> Result<(), String> {
        let step = (services.len() / 64).max(1);
        let mut waiting: Vec<usize> = (0..services.len()).step_by(step).chain([services.len() - 1]).collect();
        let deadline = Instant::now() + COLD;
        self.network.client.run(|| {
            while let Some(index) = waiting.last() {
                if ask(service(*index), IMPATIENCE).is_ok() {
                    waiting.pop();
                    continue;
                }
                contender.check()?;
                if Instant::now() > deadline {
                    return Err(format!("service {index} does not answer after {} s", COLD.as_secs()));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        })
    }

    /// Times of first packets to services all over, and of the same number straight to endpoints.
    pub fn first_packets(&self, services: &Services, count: usize) -> (Vec<Duration>, Vec<Duration>) {
        self.network.client.run(|| {
            let times = |to: &dyn Fn(usize) -> SocketAddr| {
                (0..count).filter_map(|round| ask(to(round * 7919 % services.len()), PATIENCE).ok()).map(|(_, took)| took).collect()
            };
            let direct = |index: usize| SocketAddr::from((services.endpoints(index)[0], PORT));
            // Warm both paths first.
            (0..50).for_each(|round| drop(ask(direct(round % services.len()), PATIENCE)));
            (times(&service), times(&direct))
        })
    }

    /// From a change to the first connection that reaches the new endpoint.
    pub fn time_change(&self, change: &Change, contender: &mut Contender) -> Result<Duration, String> {
        let prepared = contender.prepare(change);
        self.network.client.run(|| {
            // Threads start before the clock does.
            let began = Instant::now();
            contender.change(change, prepared)?;
            loop {
                if ask(service(change.service), PATIENCE).is_ok_and(|(reached, _)| reached == change.came) {
                    return Ok(began.elapsed());
                }
                let waited = began.elapsed();
                if waited > CHANGE {
                    return Err(format!("a change took longer than {} s", CHANGE.as_secs()));
                }
                contender.check()?;
                // The longer it takes, the less exactly it must be known.
                if waited > Duration::from_millis(20) {
                    std::thread::sleep(waited / 500);
                }
            }
        })
    }
}
