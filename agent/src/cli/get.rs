//! `longshore get`.

use super::client::{Client, ClientError, Socket};
use super::resource::{self, Resource};
use super::{Fault, Scope};
use crate::api::{List, Query, query};
use crate::run::clock;
use crate::table::{self, Table};
use clap::{Args, ValueEnum};
use http_body_util::BodyExt as _;
use serde_json::Value;
use std::io::Write as _;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Wide,
    Yaml,
    Json,
    Name,
}

/// Show objects of this node: pods (po), services (svc), endpoints (ep), endpointslices, events (ev).
#[derive(Args)]
#[command(after_help = "Examples:
  longshore get pods                     pods of namespace default
  longshore get po -A -o wide            all pods, with their addresses
  longshore get pod web -o yaml          one pod, whole
  longshore get svc,ep -n kube-system    services and their endpoints
  longshore get events -w                what happens, as it happens")]
pub struct Get {
    /// KIND [NAME...] or KIND/NAME...; several kinds with commas
    #[arg(required = true, value_name = "KIND")]
    what: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// Objects of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Output>,
    /// Go on showing changes
    #[arg(short, long)]
    watch: bool,
    /// Leave the names of columns away
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Get {
    pub async fn main(self) -> Result<(), Fault> {
        let client = Client::new(&self.socket);
        let kinds: Vec<&str> = self.what[0].split(',').collect();
        if kinds.len() == 1 {
            let (resource, names) = resource::target(&self.what)?;
            return self.one(&client, resource, &names).await;
        }
        if self.what.len() > 1 || self.watch {
            return Err("several kinds at once go neither with names nor with --watch".into());
        }
        let kinds: Vec<Resource> = kinds.into_iter().map(Resource::parse).collect::<Result<_, _>>()?;
        let mut shown = false;
        for resource in kinds {
            let items = client.read::<List<Value>>(&resource.id().path(self.namespace())).await?.items;
            if items.is_empty() && matches!(self.output, None | Some(Output::Wide)) {
                continue;
            }
            let between = match self.output {
                None | Some(Output::Wide) => "\n",
                Some(Output::Yaml) => "---\n",
                Some(Output::Json | Output::Name) => "",
            };
            if std::mem::replace(&mut shown, true) {
                emit(between)?;
            }
            self.print(resource, items, false)?;
        }
        if !shown {
            self.tell_nothing();
        }
        Ok(())
    }

    fn tell_nothing(&self) {
        match self.namespace() {
            Some(n) => eprintln!("No resources found in {n} namespace."),
            None => eprintln!("No resources found"),
        }
    }

    fn namespace(&self) -> Option<&str> {
        (!self.all_namespaces).then_some(self.scope.namespace.as_str())
    }

    async fn one(&self, client: &Client, resource: Resource, names: &[String]) -> Result<(), Fault> {
        if self.all_namespaces && !names.is_empty() {
            return Err("a resource cannot be retrieved by name across all namespaces".into());
        }
        if self.watch {
            return self.watch(client, resource, names).await;
        }
        let path = resource.id().path(self.namespace());
        let mut items = Vec::new();
        if names.is_empty() || resource == Resource::Endpoints {
            items = client.read::<List<Value>>(&path).await?.items;
            if !names.is_empty() {
                items = endpoints_of(items, names)?;
            }
        } else {
            for name in names {
                items.push(client.read::<Value>(&format!("{path}/{}", query::encode(name))).await?);
            }
        }
        self.print(resource, items, names.len() == 1 && resource != Resource::Endpoints)
    }

    fn print(&self, resource: Resource, items: Vec<Value>, single: bool) -> Result<(), Fault> {
        let object = |mut items: Vec<Value>| match items.pop() {
            Some(item) if single => item,
            last => {
                items.extend(last);
                serde_json::json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
            }
        };
        let text = match self.output {
            Some(Output::Json) => serde_json::to_string_pretty(&object(items)).map_err(|e| ClientError::Unreadable(e.into()))? + "\n",
            Some(Output::Yaml) => yaml(&object(items))?,
            Some(Output::Name) => {
                let line = |i: &Value| format!("{}/{}\n", resource.prefix(), i["metadata"]["name"].as_str().unwrap_or_default());
                items.iter().map(line).collect()
            }
            None | Some(Output::Wide) if items.is_empty() => {
                self.tell_nothing();
                return Ok(());
            }
            None | Some(Output::Wide) => {
                let t = self.table(resource, items)?;
                t.text(self.output.is_some(), !self.no_headers, &[])
            }
        };
        emit(&text)
    }

    fn table(&self, resource: Resource, items: Vec<Value>) -> Result<Table, Fault> {
        let now = clock::now().wall;
        let place = |i: &Value| i["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let mut namespaces: Vec<String> = items.iter().map(place).collect();
        let mut t = match resource {
            Resource::Pods => table::pods::table(&typed(items)?, now),
            Resource::Services => table::services::table(&typed(items)?, now),
            Resource::Events => table::events::table(&typed(items)?, now),
            Resource::EndpointSlices => table::endpoints::slices(&typed(items)?, now),
            Resource::Endpoints => {
                let (t, of) = table::endpoints::table(&typed(items)?, now);
                namespaces = of;
                t
            }
        };
        if self.all_namespaces {
            t.prepend("NAMESPACE", namespaces);
        }
        Ok(t)
    }

    /// First all that is there, then each change as it comes.
    async fn watch(&self, client: &Client, resource: Resource, names: &[String]) -> Result<(), Fault> {
        let mut query = Query::default();
        query.push("watch", true);
        query.push("sendInitialEvents", true);
        let response = client.open(&resource.id().path(self.namespace()), &query).await?;
        let mut lines = Lines::new(response.into_body());
        let mut initial = Some(Vec::new());
        let mut widths = Vec::new();
        while let Some(line) = lines.next().await? {
            let mut event: Value = serde_json::from_slice(&line).map_err(|e| ClientError::Unreadable(e.into()))?;
            let object = event["object"].take();
            if event["type"] == "BOOKMARK" {
                let first = initial.take().unwrap_or_default();
                self.changed(resource, first, true, &mut widths)?;
                continue;
            }
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let of = object["metadata"]["labels"][table::endpoints::SERVICE_NAME].as_str().unwrap_or(name);
            let shown = if resource == Resource::Endpoints { of } else { name };
            if !names.is_empty() && !names.iter().any(|n| n == shown) {
                continue;
            }
            match &mut initial {
                Some(list) => list.push(object),
                None => self.changed(resource, vec![object], false, &mut widths)?,
            }
        }
        Err("the daemon ended the watch; it may be restarting".into())
    }

    fn changed(&self, resource: Resource, items: Vec<Value>, header: bool, widths: &mut Vec<usize>) -> Result<(), Fault> {
        if !matches!(self.output, None | Some(Output::Wide)) {
            return items.into_iter().try_for_each(|i| self.print(resource, vec![i], true));
        }
        let t = self.table(resource, items)?;
        if widths.is_empty() {
            *widths = t.widths();
        }
        emit(&t.text(self.output.is_some(), header && !self.no_headers, widths))
    }
}

fn typed<T: serde::de::DeserializeOwned>(items: Vec<Value>) -> Result<Vec<T>, Fault> {
    items.iter().map(crate::typed::read).collect::<Result<Vec<T>, _>>().map_err(|e| ClientError::from(e).into())
}

fn endpoints_of(items: Vec<Value>, names: &[String]) -> Result<Vec<Value>, Fault> {
    let of = |i: &Value| i["metadata"]["labels"][table::endpoints::SERVICE_NAME].as_str().unwrap_or_default().to_owned();
    let missing = names.iter().find(|n| !items.iter().any(|i| of(i) == **n));
    match missing {
        Some(name) => Err(format!("error from daemon (NotFound): endpoints {name:?} not found").into()),
        None => Ok(items.into_iter().filter(|i| names.contains(&of(i))).collect()),
    }
}

pub(super) fn yaml(v: &Value) -> Result<String, Fault> {
    serde_saphyr::to_string(v).map_err(|e| Fault::from(format!("cannot write YAML: {e}")))
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub(super) fn emit(text: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Fault::quiet(0)),
        Err(e) => Err(format!("cannot write: {e}").into()),
        Ok(()) => Ok(()),
    }
}

/// Lines of a body that goes on.
struct Lines {
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Lines {
    fn new(body: hyper::body::Incoming) -> Lines {
        Lines { body, rest: Vec::new() }
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let tail = self.rest.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.rest, tail)));
            }
            match self.body.frame().await {
                Some(frame) => self.rest.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_says_the_same_as_json_to_old_readers_too() {
        let tricky = [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "N",
            "true",
            "null",
            "~",
            "",
            "1",
            "1.5",
            "1e3",
            "0x1f",
            "010",
            "0o10",
            "1_000",
            "12:30:45",
            "2026-11-20",
            "2026-11-20T10:00:00Z",
            "a: b",
            "- x",
            "#c",
            "a #b",
            "two\nlines\n",
            "tab\t",
            " led",
            "trail ",
            "{x}",
            "[x]",
            "*a",
            "&a",
            "!t",
            "%d",
            "@x",
            "`x`",
            "'q'",
            "\"q\"",
            "back\\slash",
            "ü",
            "key:",
            "?",
            "-",
            "=",
            "<<",
            "|",
            ">",
            ".inf",
            ".nan",
            "-",
            "---",
            "...",
            "\u{1}",
        ];
        let v = serde_json::json!({"list": tricky.as_slice(), "map": {"yes": "a", "1": {"": []}, "x": {}}, "n": [1, -2, 1.5, true, null]});
        let Ok(text) = yaml(&v) else { panic!("no YAML") };
        let options = serde_saphyr::options! { legacy_octal_numbers: true, strict_booleans: false };
        let back: Value = serde_saphyr::from_str_with_options(&text, options).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(back, v, "{text}");
        // What a reader of YAML 1.1 takes for something else than text stands in quotes.
        for word in ["yes", "no", "on", "off", "y", "N", "12:30:45", "1_000", "010", "2026-11-20", "=", "<<"] {
            assert!(!text.contains(&format!("- {word}\n")), "{word} stands bare in\n{text}");
        }
    }
}
