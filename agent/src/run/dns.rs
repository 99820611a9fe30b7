//! The lone node's DNS: answers names of services and pods, and forwards the rest.
//!
//! Listens on the node's own addresses at a port of its own; a service with the DNS address leads there.
//! Answers pods and this node only, so that no open resolver faces the network.

use super::services::Services;
use crate::lone::addresses::Range;
use crate::lone::endpoints::SERVICE_NAME;
use crate::lone::zone::{self, Answer, Kind, Zone};
use longshore_dataplane::wire::{Endpoint, EndpointPort, EndpointSlice, IntOrString, ObjectMeta, Service, ServicePort};
use simple_dns::rdata::{A, AAAA, CNAME, PTR, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Seconds that an answer may be kept; short, because endpoints change.
const TTL: u32 = 5;
const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Bytes of a UDP answer to a client that says nothing of larger ones.
const UDP_PLAIN: usize = 512;
const MESSAGE_MAX: usize = 65_535;

pub struct Dns {
    pub services: Rc<Services>,
    pub domain: String,
    /// Whom to ask for other names.
    pub upstream: Vec<IpAddr>,
    /// Who may ask.
    pub clients: Vec<Range>,
    pub own: Vec<IpAddr>,
}

/// The service at which pods find the DNS, and the slice that leads to this node.
pub fn service(address: IpAddr, node: IpAddr, port: u16) -> (Service, EndpointSlice) {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned();
    let meta = |name: &str| ObjectMeta { name: name.into(), namespace: "kube-system".into(), ..ObjectMeta::default() };
    let mut service = Service { metadata: meta("kube-dns"), ..Service::default() };
    service.spec.type_ = "ClusterIP".into();
    service.spec.cluster_ip = address.to_string();
    service.spec.cluster_ips = vec![address.to_string()];
    service.spec.ip_families = vec![family.clone()];
    let ports = [("dns", "UDP"), ("dns-tcp", "TCP")];
    let service_port = |(name, protocol): (&str, &str)| ServicePort {
        name: name.into(),
        protocol: protocol.into(),
        port: 53,
        target_port: Some(IntOrString::Int(port.into())),
        ..ServicePort::default()
    };
    service.spec.ports = ports.map(service_port).into();
    let mut slice = EndpointSlice { metadata: meta("kube-dns-node"), address_type: family, ..EndpointSlice::default() };
    slice.metadata.labels.insert(SERVICE_NAME.into(), "kube-dns".into());
    let slice_port = |(name, protocol): (&str, &str)| EndpointPort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: Some(port.into()),
        ..EndpointPort::default()
    };
    slice.ports = ports.map(slice_port).into();
    slice.endpoints = vec![Endpoint { addresses: vec![node.to_string()], ..Endpoint::default() }];
    (service, slice)
}

#[derive(Debug, thiserror::Error)]
#[error("dns on {address}: {source}")]
pub struct DnsError {
    address: SocketAddr,
    source: std::io::Error,
}

impl Dns {
    /// Binds UDP and TCP of the same port on `ip`, and serves for ever. Returns the port.
    pub async fn listen(self: &Rc<Self>, ip: IpAddr, port: u16) -> Result<u16, DnsError> {
        let address = SocketAddr::new(ip, port);
        let at = |source| DnsError { address, source };
        let udp = UdpSocket::bind(address).await.map_err(at)?;
        let port = udp.local_addr().map_err(at)?.port();
        let tcp = TcpListener::bind((ip, port)).await.map_err(at)?;
        let (one, two) = (self.clone(), self.clone());
        tokio::task::spawn_local(async move { one.serve_udp(udp).await });
        tokio::task::spawn_local(async move { two.serve_tcp(tcp).await });
        Ok(port)
    }

    fn may_ask(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.own.contains(&ip) || self.clients.iter().any(|r| r.contains(ip))
    }

    async fn serve_udp(self: Rc<Self>, socket: UdpSocket) {
        let socket = Rc::new(socket);
        let mut buffer = vec![0_u8; MESSAGE_MAX];
        loop {
            let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
            if !self.may_ask(from.ip()) {
                continue;
            }
            let (query, this, socket) = (buffer[..n].to_vec(), self.clone(), socket.clone());
            tokio::task::spawn_local(async move {
                if let Some(reply) = this.reply(&query, false).await {
                    let _ = socket.send_to(&reply, from).await;
                }
            });
        }
    }

    async fn serve_tcp(self: Rc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                // Out of descriptors, most likely: others need the time to give some back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if self.may_ask(from.ip()) {
                let this = self.clone();
                tokio::task::spawn_local(async move {
                    let _ = this.converse(stream).await;
                });
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> std::io::Result<()> {
        loop {
            let length = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
            let mut query = vec![0; usize::from(length)];
            tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
            let Some(reply) = self.reply(&query, true).await else { return Ok(()) };
            stream.write_u16(u16::try_from(reply.len()).unwrap_or(u16::MAX)).await?;
            stream.write_all(&reply).await?;
        }
    }

    async fn reply(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let packet = Packet::parse(query).ok()?;
        if packet.has_flags(PacketFlag::RESPONSE) {
            return None;
        }
        let question = packet.questions.first()?;
        let name = question.qname.to_string();
        let kind = match question.qtype {
            QTYPE::TYPE(TYPE::A | TYPE::AAAA | TYPE::CNAME) | QTYPE::ANY => Kind::Address,
            QTYPE::TYPE(TYPE::SRV) => Kind::Service,
            QTYPE::TYPE(TYPE::PTR) => Kind::Pointer,
            _ => Kind::Other,
        };
        let answer = self.look_up(&name, kind);
        if answer == Answer::Elsewhere {
            return self.forward(query, tcp).await.or_else(|| failure(&packet));
        }
        let limit = packet.opt().map_or(UDP_PLAIN, |o| usize::from(o.udp_packet_size).max(UDP_PLAIN));
        build(&packet, &answer, if tcp { MESSAGE_MAX } else { limit })
    }

    fn look_up(&self, name: &str, kind: Kind) -> Answer {
        self.services.with(|lone| {
            let service =
                |ns: &str, n: &str| lone.services().find(|s| s.metadata.namespace == ns && s.metadata.name == n).map(|s| (**s).clone());
            let slices = |ns: &str, n: &str| {
                let mine = |s: &&std::sync::Arc<longshore_dataplane::wire::EndpointSlice>| {
                    s.metadata.namespace == ns && zone::owner_of(s) == Some(n)
                };
                lone.slices().filter(mine).map(|s| (**s).clone()).collect()
            };
            let owner = |ip: IpAddr| {
                let text = ip.to_string();
                let has = |s: &&std::sync::Arc<longshore_dataplane::wire::Service>| s.spec.cluster_ips.contains(&text);
                let full = |s: &std::sync::Arc<longshore_dataplane::wire::Service>| {
                    format!("{}.{}.svc.{}", s.metadata.name, s.metadata.namespace, self.domain)
                };
                lone.services().filter(has).map(full).collect()
            };
            zone::answer(&Zone { domain: &self.domain, services: &service, slices: &slices, owner: &owner }, name, kind)
        })
    }

    /// Asks the host's own servers, one after the other.
    async fn forward(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for server in &self.upstream {
            let ask = async { if tcp { over_tcp(query, *server).await } else { over_udp(query, *server).await } };
            if let Ok(Ok(reply)) = tokio::time::timeout(FORWARD_TIMEOUT, ask).await {
                return Some(reply);
            }
        }
        None
    }
}

async fn over_udp(query: &[u8], server: IpAddr) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect((server, 53)).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let n = socket.recv(&mut buffer).await?;
        // Another answer than ours is somebody's forgery.
        if n >= 2 && buffer[..2] == query[..2] {
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(query: &[u8], server: IpAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((server, 53)).await?;
    stream.write_u16(u16::try_from(query.len()).unwrap_or(u16::MAX)).await?;
    stream.write_all(query).await?;
    let mut reply = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

fn failure(query: &Packet<'_>) -> Option<Vec<u8>> {
    let mut reply = head(query);
    *reply.rcode_mut() = RCODE::ServerFailure;
    reply.build_bytes_vec().ok()
}

fn head<'a>(query: &Packet<'a>) -> Packet<'a> {
    let mut reply = Packet::new_reply(query.id());
    reply.questions.clone_from(&query.questions);
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::AUTHORITATIVE_ANSWER);
    if query.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply
}

fn build(query: &Packet<'_>, answer: &Answer, limit: usize) -> Option<Vec<u8>> {
    let question = query.questions.first()?;
    let mut reply = head(query);
    let owner = question.qname.clone();
    let mut add = |data| reply.answers.push(ResourceRecord::new(owner.clone(), CLASS::IN, TTL, data));
    let wants = |t: TYPE| question.qtype == QTYPE::TYPE(t) || question.qtype == QTYPE::ANY;
    match answer {
        Answer::Addresses(ips) => {
            for ip in ips {
                match ip {
                    IpAddr::V4(a) if wants(TYPE::A) => add(RData::A(A::from(*a))),
                    IpAddr::V6(a) if wants(TYPE::AAAA) => add(RData::AAAA(AAAA::from(*a))),
                    _ => {}
                }
            }
        }
        Answer::Services(list) => {
            for (target, port) in list {
                add(RData::SRV(SRV { priority: 0, weight: 100, port: *port, target: Name::new(target).ok()?.into_owned() }));
            }
        }
        Answer::Alias(to) => add(RData::CNAME(CNAME(Name::new(to).ok()?.into_owned()))),
        Answer::Pointer(names) => {
            for n in names {
                add(RData::PTR(PTR(Name::new(n).ok()?.into_owned())));
            }
        }
        Answer::NoSuchName => *reply.rcode_mut() = RCODE::NameError,
        Answer::Elsewhere => return None,
    }
    let bytes = reply.build_bytes_vec_compressed().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    // Too large for a datagram: the client is to come back over TCP.
    let mut short = head(query);
    short.set_flags(PacketFlag::TRUNCATION);
    short.build_bytes_vec().ok()
}
