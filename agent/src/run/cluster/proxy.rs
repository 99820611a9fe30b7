//! The service proxy of a node whose kubelet is another program: services, slices, ranges and this node's object go to
//! the data plane, and what it tells of services goes to the server.

use super::events::Events;
use super::reflector::{Consumer, What, follow};
use super::services::Services;
use crate::cluster::reflect::Told;
use crate::run::client::{Client, ClientError, Config};
use crate::run::clock;
use crate::run::event_loop::PodListener as _;
use crate::run::events::Recorder;
use crate::run::services::event_of;
use longshore_dataplane::Dataplane;
use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use tokio::sync::{Notify, mpsc};

/// `clientConnection`, and whose proxy this is.
#[derive(Clone, Debug)]
pub struct Member {
    pub kubeconfig: PathBuf,
    pub qps: f64,
    pub burst: u32,
    pub node: String,
}

/// Opens the kubeconfig, and follows the server until the process ends. Needs a local set.
pub async fn serve(m: &Member, dataplane: Rc<Dataplane>) -> Result<(), ClientError> {
    let user_agent = format!("kube-proxy/{} (longshore)", crate::KUBERNETES_VERSION);
    let client = Client::open(&Config { kubeconfig: m.kubeconfig.clone(), qps: m.qps, burst: m.burst, user_agent })?;
    // What environments show is a kubelet's business.
    let (to, mut unheard) = mpsc::channel(1);
    let services = Services::new(Some(dataplane.clone()), to, Rc::new(Cell::new(false)), Rc::new(Notify::new()));
    services.start(&client);
    let own = What::named("/api/v1/nodes", &m.node);
    tokio::task::spawn_local(follow(client.clone(), own, Own(services)));
    let told = Events::new(client, &m.node, 0.0, 1);
    tokio::task::spawn_local(told.clone().run());
    let (events, mut recorder) = (dataplane.events(), Recorder::default());
    loop {
        tokio::select! {
            e = events.next() => {
                recorder.record(event_of(e, &m.node, |_, _| String::new()), clock::now().wall);
                if let Some(recorded) = recorder.last() {
                    told.recorded(recorded);
                }
            }
            _ = unheard.recv() => {}
        }
    }
}

/// This node's own object.
struct Own(Rc<Services>);

impl Consumer for Own {
    async fn told(&mut self, told: Told) {
        if let Told::Set(node) = told {
            self.0.set_node(&node);
        }
    }
}
