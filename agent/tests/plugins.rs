//! The sockets that plugins and monitors use, over real HTTP/2 with the bytes that clients in Go send.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use longshore::grpc::frame::{self, Code, Status};
use longshore::grpc::messages::{
    Device, DevicePluginOptions, Empty, ListAndWatchResponse, Message, PluginInfo, RegisterRequest, RegistrationStatus, device,
    registration,
};
use longshore::run::grpc::{Answer, Channel, Service, reply, request, serve, unknown};
use longshore::run::plugins::devices::{Devices, clean};
use longshore::run::plugins::registry;
use std::cell::RefCell;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

const SOON: Duration = Duration::from_secs(20);

fn alone(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { tokio::time::timeout(3 * SOON, test).await.expect("the test ends in time") });
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !is() {
        assert!(tokio::time::Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Answers with what it was asked, and remembers the paths.
#[derive(Default)]
struct Echo(RefCell<Vec<String>>);

impl Service for Echo {
    fn call(self: Rc<Self>, path: String, message: Vec<u8>) -> LocalBoxFuture<'static, Answer> {
        self.0.borrow_mut().push(path.clone());
        Box::pin(async move {
            match path.as_str() {
                "/v1beta1.Registration/Register" => reply(&request::<RegisterRequest>(message)?),
                "/fails" => Err(Status::new(Code::Unknown, "100 % wrong")),
                _ => Err(unknown(&path)),
            }
        })
    }
}

/// A header block as grpc-go writes it: indexed pseudo-headers, the path and the authority as literals to be remembered.
fn block(authority: &[u8], literal: u8) -> Vec<u8> {
    let text = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat();
    let mut b = vec![0x83, 0x86, 0x44];
    b.extend(text(b"/v1beta1.Registration/Register"));
    b.push(literal);
    b.extend(text(authority));
    b.push(0x5f);
    b.extend(text(b"application/grpc"));
    b.push(0x40);
    b.extend([text(b"te"), text(b"trailers")].concat());
    b
}

fn frame_of(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let n = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[n[1], n[2], n[3], kind, flags, 0, 0, 0, stream], payload].concat()
}

/// All that comes back until the peer's trailers of this stream, or an end.
async fn answered(stream: &mut UnixStream, id: u8) -> (bool, Vec<u8>) {
    let (mut read, mut data) = (Vec::new(), Vec::new());
    loop {
        let mut chunk = [0; 4096];
        let n = tokio::time::timeout(SOON, stream.read(&mut chunk)).await.expect("it answers").unwrap_or(0);
        if n == 0 {
            return (false, data);
        }
        read.extend_from_slice(&chunk[..n]);
        while read.len() >= 9 {
            let length = usize::from(read[0]) << 16 | usize::from(read[1]) << 8 | usize::from(read[2]);
            if read.len() < 9 + length {
                break;
            }
            let f: Vec<u8> = read.drain(..9 + length).collect();
            match (f[3], f[8] == id) {
                (0, true) => data.extend_from_slice(&f[9..]),
                (1, true) if f[4] & 1 != 0 => return (true, data),
                (3, true) | (7, _) => return (false, data),
                _ => {}
            }
        }
    }
}

#[test]
fn every_way_in_which_go_names_a_socket_is_understood() {
    alone(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.sock");
        let echo = Rc::new(Echo::default());
        tokio::task::spawn_local(serve(UnixListener::bind(&path).unwrap(), echo.clone()));
        let asked =
            RegisterRequest { version: "v1beta1".into(), endpoint: "x.sock".into(), resource_name: "example.com/x".into(), options: None };
        // grpc.Dial(path, WithContextDialer), passthrough:///path, unix:path, unix:///path, unix-abstract:, WithAuthority.
        let forms: [&[u8]; 6] = [
            b"/var/lib/kubelet/device-plugins/kubelet.sock",
            b"%2Fvar%2Flib%2Fkubelet%2Fdevice-plugins%2Fkubelet.sock",
            b"localhost",
            b"unix:///run/kubelet.sock",
            b"kubelet.sock",
            b"localhost:0",
        ];
        for authority in forms {
            // To be remembered, not to be, and never to be.
            for literal in [0x41, 0x01, 0x11] {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
                bytes.extend(frame_of(4, 0, 0, &[]));
                bytes.extend(frame_of(1, 4, 1, &block(authority, literal)));
                bytes.extend(frame_of(0, 1, 1, &frame::write(&asked)));
                stream.write_all(&bytes).await.unwrap();
                let (whole, mut data) = answered(&mut stream, 1).await;
                let name = String::from_utf8_lossy(authority).into_owned();
                assert!(whole, "{name:?} {literal:#x}");
                assert_eq!(frame::take::<RegisterRequest>(&mut data), Some(Ok(asked.clone())), "{name:?}");
                // The second request says the same by index: the tables of both sides are equal.
                if literal == 0x41 {
                    let again = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
                    stream.write_all(&[frame_of(1, 4, 3, &again), frame_of(0, 1, 3, &frame::write(&asked))].concat()).await.unwrap();
                    let (whole, mut data) = answered(&mut stream, 3).await;
                    assert!(whole, "{name:?} again");
                    assert_eq!(frame::take::<RegisterRequest>(&mut data), Some(Ok(asked.clone())));
                }
            }
        }
        assert!(echo.0.borrow().iter().all(|p| p == "/v1beta1.Registration/Register"));
    });
}

#[test]
fn a_failure_comes_with_its_code_and_text() {
    alone(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        tokio::task::spawn_local(serve(UnixListener::bind(&path).unwrap(), Rc::new(Echo::default())));
        let mut channel = Channel::dial(&path, SOON).await.unwrap();
        let failed = channel.call::<Empty, Empty>("/fails", &Empty {}, SOON).await.unwrap_err().to_string();
        assert_eq!(failed, "/fails: code 2: 100 % wrong");
        let failed = channel.call::<Empty, Empty>("/nothing", &Empty {}, SOON).await.unwrap_err().to_string();
        assert!(failed.contains("code 12: unknown method /nothing"), "{failed}");
        let huge = RegisterRequest { endpoint: "x".repeat(5 << 20), ..RegisterRequest::default() };
        let failed = channel.call::<_, Empty>("/v1beta1.Registration/Register", &huge, SOON).await.unwrap_err().to_string();
        assert!(failed.contains("code 8"), "{failed}");
    });
}

/// A device plugin that is its own registration as well, as the newer ones are.
struct Plugin {
    info: PluginInfo,
    devices: watch::Receiver<Vec<Device>>,
    told: Arc<Mutex<Option<RegistrationStatus>>>,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

fn done() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))])
}

fn one<M: Message>(m: &M) -> Body {
    Full::from(frame::write(m)).with_trailers(std::future::ready(Some(Ok(done())))).boxed_unsync()
}

impl Plugin {
    /// Serves until the task is dropped.
    fn start(self, socket: &Path) -> tokio::task::JoinHandle<()> {
        let listener = UnixListener::bind(socket).unwrap();
        let me = Arc::new(self);
        tokio::task::spawn_local(async move {
            let mut served = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let me = me.clone();
                let handler = service_fn(move |r: Request<hyper::body::Incoming>| {
                    let me = me.clone();
                    async move {
                        let path = r.uri().path().to_owned();
                        let mut body = r.into_body().collect().await.unwrap().to_bytes().to_vec();
                        let body = match path.as_str() {
                            registration::GET_INFO => one(&me.info),
                            registration::NOTIFY => {
                                *me.told.lock().unwrap() = Some(frame::take(&mut body).unwrap().unwrap());
                                one(&Empty {})
                            }
                            device::OPTIONS => one(&DevicePluginOptions::default()),
                            _ => {
                                let mut devices = me.devices.clone();
                                devices.mark_changed();
                                let lists = futures_util::stream::unfold(devices, |mut d| async move {
                                    d.changed().await.ok()?;
                                    let devices = d.borrow_and_update().clone();
                                    let data = frame::write(&ListAndWatchResponse { devices });
                                    Some((Ok::<_, Infallible>(Frame::data(Bytes::from(data))), d))
                                });
                                StreamBody::new(lists).boxed_unsync()
                            }
                        };
                        Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
                    }
                });
                served.spawn(async move {
                    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = served.serve_connection(TokioIo::new(stream), handler).await;
                });
            }
        })
    }
}

fn gpu(id: &str) -> Device {
    Device { id: id.into(), health: "Healthy".into(), topology: None }
}

struct Lab {
    dir: TempDir,
    devices: Rc<Devices>,
    more: watch::Sender<Vec<Device>>,
    told: Arc<Mutex<Option<RegistrationStatus>>>,
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("plugins_registry")).unwrap();
        let device_plugins = dir.path().join("device-plugins");
        clean(&device_plugins).unwrap();
        let devices = Rc::new(Devices::new(&device_plugins));
        tokio::task::spawn_local(serve(UnixListener::bind(device_plugins.join("kubelet.sock")).unwrap(), devices.clone()));
        tokio::task::spawn_local(registry::watch(dir.path().join("plugins_registry"), devices.clone()));
        Lab { dir, devices, more: watch::channel(vec![gpu("a")]).0, told: Arc::default() }
    }

    fn plugin(&self, kind: &str, name: &str, version: &str) -> Plugin {
        let info = PluginInfo { kind: kind.into(), name: name.into(), endpoint: String::new(), supported_versions: vec![version.into()] };
        Plugin { info, devices: self.more.subscribe(), told: self.told.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn has(&self, ids: &[(&str, &str)]) -> bool {
        let offers = self.devices.offers();
        let all: Vec<(&str, &str)> = offers.iter().flat_map(|(_, d)| d).map(|d| (d.id.as_str(), d.health.as_str())).collect();
        all == ids
    }
}

#[test]
fn a_device_plugin_registers_and_its_devices_are_followed() {
    alone(async {
        let lab = Lab::new();
        let task = lab.plugin("DevicePlugin", "x", "v1beta1").start(&lab.path("device-plugins/gpu.sock"));
        let mut kubelet = Channel::dial(&lab.path("device-plugins/kubelet.sock"), SOON).await.unwrap();
        let mut r = RegisterRequest {
            version: "v1beta1".into(),
            endpoint: "gpu.sock".into(),
            resource_name: "example.com/gpu".into(),
            options: None,
        };
        let _: Empty = kubelet.call(device::REGISTER, &r, SOON).await.unwrap();
        until("the devices are known", || lab.has(&[("a", "Healthy")])).await;
        lab.more.send(vec![gpu("a"), gpu("b")]).unwrap();
        until("a second one is known", || lab.has(&[("a", "Healthy"), ("b", "Healthy")])).await;
        task.abort();
        until("they are not healthy any more", || lab.has(&[("a", "Unhealthy"), ("b", "Unhealthy")])).await;
        for (version, endpoint, name) in
            [("v2", "gpu.sock", "example.com/gpu"), ("v1beta1", "../x", "example.com/gpu"), ("v1beta1", "gpu.sock", "gpu")]
        {
            (r.version, r.endpoint, r.resource_name) = (version.into(), endpoint.into(), name.into());
            assert!(kubelet.call::<_, Empty>(device::REGISTER, &r, SOON).await.is_err(), "{version} {endpoint} {name}");
        }
    });
}

#[test]
fn a_socket_in_the_registry_is_asked_what_it_is_and_told_what_became_of_it() {
    alone(async {
        let lab = Lab::new();
        std::fs::create_dir(lab.path("plugins_registry/deep")).unwrap();
        let socket = lab.path("plugins_registry/deep/gpu-reg.sock");
        let task = lab.plugin("DevicePlugin", "example.com/gpu", "v1beta1").start(&socket);
        until("it is told", || lab.told.lock().unwrap().as_ref().is_some_and(|t| t.plugin_registered)).await;
        until("the devices are known", || lab.has(&[("a", "Healthy")])).await;
        std::fs::remove_file(&socket).unwrap();
        until("they are not healthy any more", || lab.has(&[("a", "Unhealthy")])).await;
        task.abort();
        for (kind, name, version, told) in [
            ("CSIPlugin", "csi.example.com", "1.0.0", "no handler registered for plugin type: CSIPlugin at socket"),
            ("DevicePlugin", "gpu", "v1beta1", "plugin validation failed with err: the ResourceName \"gpu\" is invalid"),
            ("DevicePlugin", "example.com/gpu", "v2", "plugin validation failed with err: requested API version \"v2\""),
        ] {
            lab.told.lock().unwrap().take();
            let socket = lab.path(&format!("plugins_registry/{kind}{version}.sock"));
            let _task = lab.plugin(kind, name, version).start(&socket);
            until(told, || lab.told.lock().unwrap().as_ref().is_some_and(|t| !t.plugin_registered && t.error.contains(told))).await;
        }
    });
}
