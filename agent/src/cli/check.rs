//! `longshore check`: reads manifests as the daemon would, without one.

use super::Fault;
use crate::config::{self, FieldError};
use crate::manifest::store::{Record, Store};
use crate::manifest::{Problem, Rules, read};
use crate::run::sources;
use crate::time::Wall;
use clap::{Args, ValueEnum};
use longshore_dataplane::config::{self as proxy, kube_proxy};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Say what is wrong with manifests, before a daemon reads them
///
/// Needs no daemon and no root. Ends with 1 if anything is wrong.
#[derive(Args)]
#[command(after_help = "Examples:
  longshore check                          the directory that the daemon watches
  longshore check ./pods web.yaml          other directories and files
  longshore check /var/lib/kubelet/config.yaml    the configuration of a kubelet or kube-proxy
  kubectl get pod web -o yaml | longshore check -    from standard input")]
pub struct Check {
    /// Directories and files; - is standard input
    #[arg(default_value = "/etc/longshore/manifests", value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Ports for services of type NodePort, as the daemon is told
    #[arg(long, default_value = "30000-32767", value_parser = super::run::port_range, value_name = "FIRST-LAST")]
    service_node_port_range: (u16, u16),
    /// How to print: one JSON object instead of lines
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Json,
}

struct Found {
    store: Store,
    unreadable: Vec<Problem>,
    rules: Rules,
    objects: usize,
    files: usize,
}

impl Check {
    pub fn main(self) -> Result<(), Fault> {
        let mut found = Found {
            store: Store::new(Record::new()),
            unreadable: Vec::new(),
            rules: Rules { node_ports: self.service_node_port_range, ..Rules::default() },
            objects: 0,
            files: 0,
        };
        for path in &self.paths {
            found.take(path, self.paths.len() > 1);
        }
        let settled = found.store.settle(Wall::default(), found.unreadable);
        let problems = settled.new_problems;
        match self.output {
            Some(Format::Json) => {
                let out = serde_json::json!({"objects": found.objects, "files": found.files, "problems": problems});
                println!("{out:#}");
            }
            None => {
                for p in &problems {
                    println!("{p}");
                }
                if problems.is_empty() {
                    println!("ok: {} in {}", count(found.objects, "object"), count(found.files, "file"));
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Fault::quiet(1)) }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// What is wrong with the configuration of a kubelet or kube-proxy, unknown fields included. None: it is none.
fn configuration(text: &str) -> Option<(&'static str, Vec<FieldError>)> {
    let document = crate::manifest::text::one(text).ok()?;
    if document["kind"] == config::KIND {
        return Some((config::KIND, config::decode::strict(&document)));
    }
    (document["kind"] == kube_proxy::KIND).then(|| {
        let unknown = proxy::decode::decode(&document).0.unknown;
        let errors = proxy::effective::settle(&proxy::flags::parse(&[]), Some(&document)).err().unwrap_or_default();
        (kube_proxy::KIND, errors.into_iter().chain(unknown).collect())
    })
}

impl Found {
    /// `several`: other places are looked at too, so names alone would not tell where.
    fn take(&mut self, path: &Path, several: bool) {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            match std::io::stdin().read_to_string(&mut text) {
                Ok(_) => self.file("standard input", &text),
                Err(e) => self.unreadable("standard input", &e),
            }
            return;
        }
        let listing = match sources::list(path) {
            Ok(l) => l,
            Err(e) => return self.unreadable(&path.display().to_string(), &e),
        };
        for (name, stamp) in listing.files {
            let full = if stamp.alone { path.to_owned() } else { path.join(&name) };
            let name = if several || stamp.alone { full.display().to_string() } else { name };
            match sources::text(&full) {
                Ok(text) => self.file(&name, &text),
                Err(e) => self.unreadable(&name, &e),
            }
        }
    }

    fn file(&mut self, name: &str, text: &str) {
        if let Some((kind, wrong)) = configuration(text) {
            self.files += 1;
            self.objects += 1;
            let problem = |e: FieldError| Problem {
                file: name.to_owned(),
                document: 1,
                object: kind.to_owned(),
                field: e.field,
                message: e.message,
                ..Problem::default()
            };
            self.unreadable.extend(wrong.into_iter().map(problem));
            return;
        }
        let contents = read(name, text, &self.rules);
        self.files += 1;
        self.objects += contents.objects.len();
        self.store.set_file(name, contents);
    }

    fn unreadable(&mut self, name: &str, e: &std::io::Error) {
        self.files += 1;
        let message = format!("cannot be read: {e}");
        self.unreadable.push(Problem { file: name.to_owned(), message, ..Problem::default() });
    }
}
