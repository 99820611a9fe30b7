//! One family's listeners and addresses: what is desired, and what is open.
//!
//! Owns every listening socket. Addresses come before the sockets on them, and go after. A socket that cannot be opened
//! (a local process has the port) holds up nothing else, and is tried again. Tests: the namespace tests.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt};
use tokio::net::{TcpListener, UdpSocket};

use super::balance::Balancer;
use super::compile::{Around, Entrance, Rule, addresses, compile};
use super::link::{Link, LinkError};
use super::relay::{Listener, Open, Relay, Times, close};
use super::{tcp, udp};
use crate::backend::{BackendError, Found, NodeAddresses, Options, Plane, Written};
use crate::events::Event;
use crate::model::{Family, FrontendKey, ObjectName, Protocol};
use crate::resolve::Resolved;
use crate::snapshot::{FrontendSnapshot, ServiceSnapshot};

/// Sockets that could not be opened are tried again after this, and then after twice as long each time. (A command that
/// is being started has copies of our sockets, also of those that are closed meanwhile, for a moment.)
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum UserspaceError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("cannot start the thread that relays: {0}")]
    Thread(#[source] io::Error),
}

/// What one socket listens on.
type Door = (Protocol, SocketAddr);

/// What a service's sockets do.
type Doors = HashMap<Door, (Arc<Rule>, Arc<Mutex<Balancer>>)>;

#[derive(Default)]
struct Service {
    entrances: Vec<Entrance>,
    /// Turns and clients of each port, by name and protocol.
    balancers: BTreeMap<(Arc<str>, Protocol), Arc<Mutex<Balancer>>>,
}

pub struct UserspacePlane {
    options: Options,
    link: Link,
    relay: Relay,
    times: Times,
    began: Instant,
    services: HashMap<ObjectName, Service>,
    /// Services that want an address, by address: it stays as long as there is one.
    wanted: BTreeMap<IpAddr, usize>,
    /// Every open socket, with whose it is.
    open: HashMap<Door, (ObjectName, Open)>,
    around: Arc<Around>,
    node_ports: Vec<IpAddr>,
    touched: BTreeSet<ObjectName>,
    touched_ips: BTreeSet<IpAddr>,
    /// Services with a socket that could not be opened, and when to try again.
    failed: BTreeSet<ObjectName>,
    retry: Option<(Instant, Duration)>,
    read: bool,
    events: Vec<Event>,
}

impl UserspacePlane {
    /// In the calling thread's network namespace.
    pub fn open(options: Options) -> Result<UserspacePlane, UserspaceError> {
        UserspacePlane::with(options, Times::default())
    }

    pub fn with(options: Options, times: Times) -> Result<UserspacePlane, UserspaceError> {
        let name = if options.family == Family::V4 { "relay-v4" } else { "relay-v6" };
        Ok(UserspacePlane {
            link: Link::open(options.family)?,
            relay: Relay::start(name).map_err(UserspaceError::Thread)?,
            around: Arc::new(Around::of(&options, Vec::new())),
            options,
            times,
            began: Instant::now(),
            services: HashMap::new(),
            wanted: BTreeMap::new(),
            open: HashMap::new(),
            node_ports: Vec::new(),
            touched: BTreeSet::new(),
            touched_ips: BTreeSet::new(),
            failed: BTreeSet::new(),
            retry: None,
            read: false,
            events: Vec::new(),
        })
    }

    fn wish(&mut self, ip: IpAddr) {
        *self.wanted.entry(ip).or_default() += 1;
        self.touched_ips.insert(ip);
    }

    fn unwish(&mut self, ip: IpAddr) {
        if let Some(count) = self.wanted.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(&ip);
                self.touched_ips.insert(ip);
            }
        }
    }

    fn doors(&self, name: &ObjectName) -> Doors {
        let mut doors = HashMap::new();
        let Some(service) = self.services.get(name) else { return doors };
        for entrance in &service.entrances {
            let Some(rule) = &entrance.rule else { continue };
            let protocol = entrance.key.protocol();
            let balancer = service.balancers.get(&(entrance.port_name.clone(), protocol)).cloned().unwrap_or_default();
            for address in addresses(&entrance.key, &self.node_ports) {
                doors.insert((protocol, address), (rule.clone(), balancer.clone()));
            }
        }
        doors
    }

    /// Closes those sockets of the services told of that they no longer want.
    fn close_unwanted(&mut self, wanted: &BTreeMap<ObjectName, Doors>, written: &mut Written) {
        let unwanted = |door: &Door, (owner, _): &mut (ObjectName, Open)| wanted.get(owner).is_some_and(|doors| !doors.contains_key(door));
        let leaving: Vec<Open> = self.open.extract_if(unwanted).map(|(_, (_, open))| open).collect();
        written.writes += leaving.len() as u64;
        close(leaving);
    }

    /// Opens and changes one service's sockets.
    fn settle(&mut self, name: &ObjectName, doors: Doors, written: &mut Written) {
        let mut failed = false;
        for (door, (rule, balancer)) in doors {
            if let Some((_, open)) = self.open.get(&door).filter(|(owner, _)| owner == name) {
                open.rules.set(rule, self.around.clone());
                continue;
            }
            let rules = Arc::new(Listener::new(rule, self.around.clone(), balancer, self.times, self.began));
            match self.listen(door, rules) {
                Ok(open) => {
                    self.open.insert(door, (name.clone(), open));
                    written.writes += 1;
                }
                Err(error) => {
                    failed = true;
                    if !self.failed.contains(name) {
                        let (protocol, address) = door;
                        tracing::warn!(service = %name, %protocol, %address, %error, "cannot listen for a service; does a local process?");
                        let message = format!("cannot listen on {protocol} {address} for {name}: {error}");
                        self.events.push(Event::warning(name, "FailedToListen", "Listen", message));
                    }
                }
            }
        }
        if failed {
            self.failed.insert(name.clone())
        } else {
            self.failed.remove(name)
        };
    }

    fn listen(&self, (protocol, address): Door, rules: Arc<Listener>) -> io::Result<Open> {
        match protocol {
            Protocol::Udp => self.relay.serve(rules, || UdpSocket::from_std(udp_socket(address)?), udp::serve),
            _ => self.relay.serve(rules, || TcpListener::from_std(tcp_listener(address)?), tcp::serve),
        }
    }

    fn everything(&mut self, now: Instant) -> Result<Written, LinkError> {
        let mut written = Written::default();
        let ips = std::mem::take(&mut self.touched_ips);
        for ip in ips.iter().filter(|ip| self.wanted.contains_key(ip)) {
            written.writes += u64::from(self.link.add(*ip)?);
        }
        self.link.wait_until_local(&ips)?;
        if self.retry.is_some_and(|(at, _)| at <= now) {
            self.touched.extend(self.failed.iter().cloned());
        }
        let touched = std::mem::take(&mut self.touched);
        let wanted: BTreeMap<ObjectName, Doors> = touched.into_iter().map(|name| (name.clone(), self.doors(&name))).collect();
        // First: one service's socket may be another's from now on.
        self.close_unwanted(&wanted, &mut written);
        for (name, doors) in wanted {
            self.settle(&name, doors, &mut written);
        }
        for ip in ips.iter().filter(|ip| !self.wanted.contains_key(ip)) {
            written.writes += u64::from(self.link.remove(*ip)?);
        }
        self.retry = match self.retry {
            _ if self.failed.is_empty() => None,
            None => Some((now + FIRST_RETRY, FIRST_RETRY)),
            Some((at, delay)) if at <= now => {
                let delay = (delay * 2).min(LAST_RETRY);
                Some((now + delay, delay))
            }
            waiting => waiting,
        };
        written.transactions = u64::from(written.writes > 0);
        Ok(written)
    }
}

fn raw_socket(address: SocketAddr, kind: SockType) -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsRawFd;
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    if kind == SockType::Stream {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn tcp_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = raw_socket(address, SockType::Stream)?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(socket.into())
}

fn udp_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    Ok(raw_socket(address, SockType::Datagram)?.into())
}

impl Plane for UserspacePlane {
    fn family(&self) -> Family {
        self.options.family
    }

    fn needs_read(&self) -> bool {
        !self.read
    }

    fn forget(&mut self) {
        self.read = false;
    }

    fn read(&mut self) -> Result<Found, BackendError> {
        self.link.read().map_err(UserspaceError::from)?;
        self.read = true;
        // Addresses of a process that is gone are taken over, or away.
        self.touched_ips.extend(self.link.held().iter().copied().chain(self.wanted.keys().copied()));
        self.touched.extend(self.services.keys().cloned());
        Ok(if self.link.held().is_empty() { Found::Nothing } else { Found::Rules })
    }

    fn set(&mut self, name: &ObjectName, resolved: Resolved) {
        let entrances = compile(&resolved);
        let vips = |entrances: &[Entrance]| -> BTreeSet<IpAddr> {
            let vip = |entrance: &Entrance| if let FrontendKey::Vip { ip, .. } = entrance.key { Some(ip) } else { None };
            entrances.iter().filter_map(vip).collect()
        };
        vips(&entrances).into_iter().for_each(|ip| self.wish(ip));
        let mut service = self.services.remove(name).unwrap_or_default();
        vips(&service.entrances).into_iter().for_each(|ip| self.unwish(ip));
        self.touched.insert(name.clone());
        if entrances.is_empty() {
            return;
        }
        let ports: BTreeSet<(Arc<str>, Protocol)> = entrances.iter().map(|e| (e.port_name.clone(), e.key.protocol())).collect();
        service.balancers.retain(|port, _| ports.contains(port));
        for port in ports {
            service.balancers.entry(port).or_default();
        }
        service.entrances = entrances;
        self.services.insert(name.clone(), service);
    }

    fn set_node_addresses(&mut self, addresses: NodeAddresses) {
        let node = addresses.links.iter().map(|(_, ip)| *ip).filter(|ip| !self.wanted.contains_key(ip)).collect();
        let around = Around::of(&self.options, node);
        // A service's own address is not the node's.
        let node_ports: Vec<IpAddr> = addresses.node_ports.into_iter().filter(|ip| !self.wanted.contains_key(ip)).collect();
        if *self.around != around || self.node_ports != node_ports {
            self.around = Arc::new(around);
            self.node_ports = node_ports;
            self.touched.extend(self.services.keys().cloned());
        }
    }

    fn wants_addresses(&self) -> bool {
        true
    }

    fn is_touched(&self) -> bool {
        !self.touched.is_empty() || !self.touched_ips.is_empty()
    }

    fn apply(&mut self, now: Instant) -> Result<Written, BackendError> {
        Ok(self.everything(now).map_err(UserspaceError::from)?)
    }

    fn audit(&mut self, _: Instant) -> Result<bool, BackendError> {
        Ok(!self.link.is_whole().map_err(UserspaceError::from)?)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    fn frontends(&self) -> usize {
        self.services.values().map(|service| service.entrances.len()).sum()
    }

    fn services(&self) -> Vec<ServiceSnapshot> {
        let mut services: Vec<ServiceSnapshot> =
            self.services.iter().map(|(name, service)| view(name, service, self.options.family)).collect();
        services.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        services
    }

    fn delete(&mut self) -> Result<(), BackendError> {
        close(self.open.drain().map(|(_, (_, open))| open).collect());
        self.link.clear().map_err(UserspaceError::from)?;
        self.read = false;
        Ok(())
    }
}

fn view(name: &ObjectName, service: &Service, family: Family) -> ServiceSnapshot {
    let frontend = |entrance: &Entrance| {
        let action = match &entrance.rule {
            None => "reject",
            Some(rule) if rule.local.is_some() => "local",
            // Whoever relays has its own address.
            Some(_) => "balance masked",
        };
        let lists = entrance.rule.as_ref().map(|rule| (rule.cluster.to_vec(), rule.local.as_ref().map_or_else(Vec::new, |l| l.to_vec())));
        let (endpoints, local_endpoints) = lists.unwrap_or_default();
        FrontendSnapshot { destination: entrance.key.to_string(), action, endpoints, local_endpoints }
    };
    ServiceSnapshot {
        namespace: name.namespace().into(),
        name: name.name().into(),
        family,
        frontends: service.entrances.iter().map(frontend).collect(),
    }
}
