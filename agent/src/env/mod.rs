#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! A container's environment, command and arguments (specification of the kubelet, 10.1), and the field
//! references that downward API volumes share with it. Owns the precedence and expansion rules; must
//! never read a file or an object by itself: everything comes in through [`Context`].
//! Tests: in each file.

pub mod expand;
pub mod fields;
pub mod services;

use crate::pod::{ConfigData, Container, EnvSource, EnvVar, Pod, PodUid, Referent, TokenWish};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where ConfigMaps and Secrets of the pod's namespace are found.
pub trait ConfigSource {
    fn get(&self, kind: Referent, namespace: &str, name: &str) -> Option<&ConfigData>;
    /// The token that this pod asked for, or why there is none; None: nobody here can give tokens.
    fn token(&self, _pod: &PodUid, _wish: &TokenWish) -> Option<Result<&str, &str>> {
        None
    }
}

/// All that an environment is made of.
pub struct Context<'a> {
    pub pod: &'a Pod,
    pub config: &'a dyn ConfigSource,
    /// Variables of the services this pod may see, in order.
    pub services: &'a [(String, String)],
    pub node: &'a NodeFacts,
    pub pod_ips: &'a [IpAddr],
}

/// What a pod may learn about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub host_ips: Vec<IpAddr>,
    /// Nano-units by resource name.
    pub allocatable: BTreeMap<String, i128>,
    /// Bytes of memory of the machine.
    pub memory_bytes: i64,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// As an API server has them; those that every node has may be missing.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<crate::admit::Taint>,
}

/// Why a container's configuration cannot be made. The text is the message of
/// `CreateContainerConfigError`; clients match on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    #[error("secret {0:?} not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error("{0}")]
    Field(String),
    #[error("{0}")]
    Other(String),
}

fn missing(kind: Referent, name: &str) -> ConfigError {
    match kind {
        Referent::ConfigMap => ConfigError::NoConfigMap(name.to_owned()),
        Referent::Secret => ConfigError::NoSecret(name.to_owned()),
    }
}

/// The environment of `c`, sorted by name.
pub fn environment(ctx: &Context<'_>, c: &Container) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    for from in &c.env_from {
        for (kind, reference) in [(Referent::ConfigMap, &from.config_map_ref), (Referent::Secret, &from.secret_ref)] {
            let Some(r) = reference else { continue };
            match ctx.config.get(kind, &ctx.pod.metadata.namespace, &r.name) {
                Some(data) => {
                    for (key, value) in data.data.iter().filter(|(k, _)| !k.contains('=')) {
                        env.insert(format!("{}{key}", from.prefix), String::from_utf8_lossy(value).into_owned());
                    }
                }
                None if r.optional => {}
                None => return Err(missing(kind, &r.name)),
            }
        }
    }
    let services: BTreeMap<&str, &str> = ctx.services.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    for var in &c.env {
        if let Some(value) = value_of(ctx, c, var, &env, &services)? {
            env.insert(var.name.clone(), value);
        }
    }
    for (k, v) in services {
        env.entry(k.to_owned()).or_insert_with(|| v.to_owned());
    }
    Ok(env.into_iter().collect())
}

fn value_of(
    ctx: &Context<'_>,
    c: &Container,
    var: &EnvVar,
    env: &BTreeMap<String, String>,
    services: &BTreeMap<&str, &str>,
) -> Result<Option<String>, ConfigError> {
    let Some(source) = &var.value_from else {
        let look_up = |name: &str| env.get(name).map(String::as_str).or_else(|| services.get(name).copied());
        return Ok(Some(expand::expand(&var.value, look_up)));
    };
    from_source(ctx, c, source)
}

fn from_source(ctx: &Context<'_>, c: &Container, source: &EnvSource) -> Result<Option<String>, ConfigError> {
    if let Some(f) = &source.field_ref {
        return fields::env_field(ctx, &f.field_path).map(Some);
    }
    if let Some(r) = &source.resource_field_ref {
        return fields::resource(ctx, c, r).map(Some);
    }
    for (kind, label, key) in
        [(Referent::ConfigMap, "ConfigMap", &source.config_map_key_ref), (Referent::Secret, "Secret", &source.secret_key_ref)]
    {
        let Some(key) = key else { continue };
        let namespace = &ctx.pod.metadata.namespace;
        let Some(data) = ctx.config.get(kind, namespace, &key.name) else {
            return if key.optional { Ok(None) } else { Err(missing(kind, &key.name)) };
        };
        return match data.data.get(&key.key) {
            Some(v) => Ok(Some(String::from_utf8_lossy(v).into_owned())),
            None if key.optional => Ok(None),
            None => Err(ConfigError::NoKey { key: key.key.clone(), kind: label, namespace: namespace.clone(), name: key.name.clone() }),
        };
    }
    if source.file_key_ref.is_some() {
        return Err(ConfigError::Other("fileKeyRef is not supported by this node yet; put the value in a ConfigMap".into()));
    }
    Ok(Some(String::new()))
}

/// Command and arguments with `$(NAME)` expanded over the final environment.
pub fn command(c: &Container, env: &[(String, String)]) -> (Vec<String>, Vec<String>) {
    let look_up = |name: &str| env.binary_search_by(|(k, _)| k.as_str().cmp(name)).ok().map(|i| env[i].1.as_str());
    let all = |list: &[String]| list.iter().map(|s| expand::expand(s, look_up)).collect();
    (all(&c.command), all(&c.args))
}

/// The environment that exec probes expand over: literal values only.
pub fn static_environment(c: &Container) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> =
        c.env.iter().filter(|v| v.value_from.is_none()).map(|v| (v.name.clone(), v.value.clone())).collect();
    env.sort();
    env
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::pod::{EnvFrom, FieldRef, KeyRef, OptionalReference};

    #[derive(Default)]
    pub(crate) struct Objects(pub BTreeMap<(Referent, String), ConfigData>);

    impl ConfigSource for Objects {
        fn get(&self, kind: Referent, _: &str, name: &str) -> Option<&ConfigData> {
            self.0.get(&(kind, name.to_owned()))
        }
    }

    pub(crate) fn data(pairs: &[(&str, &str)]) -> ConfigData {
        ConfigData { data: pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().into())).collect(), ..ConfigData::default() }
    }

    fn literal(name: &str, value: &str) -> EnvVar {
        EnvVar { name: name.into(), value: value.into(), value_from: None }
    }

    fn run(c: &Container, objects: &Objects, services: &[(String, String)]) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut pod = Pod::default();
        pod.metadata.name = "web".into();
        pod.metadata.namespace = "default".into();
        let node = NodeFacts { name: "node1".into(), ..NodeFacts::default() };
        let ctx = Context { pod: &pod, config: objects, services, node: &node, pod_ips: &["10.1.2.3".parse().unwrap()] };
        environment(&ctx, c).map(|v| v.into_iter().collect())
    }

    #[test]
    fn later_sources_win_and_variables_see_earlier_ones() {
        let mut objects = Objects::default();
        objects.0.insert((Referent::ConfigMap, "a".into()), data(&[("X", "from-map"), ("Y", "y")]));
        objects.0.insert((Referent::Secret, "b".into()), data(&[("X", "from-secret"), ("bad=key", "no")]));
        let reference = |n: &str| Some(OptionalReference { name: n.into(), optional: false });
        let c = Container {
            env_from: vec![
                EnvFrom { prefix: "P_".into(), config_map_ref: reference("a"), secret_ref: None },
                EnvFrom { prefix: String::new(), config_map_ref: reference("a"), secret_ref: None },
                EnvFrom { prefix: String::new(), config_map_ref: None, secret_ref: reference("b") },
            ],
            env: vec![literal("Z", "$(X)-$(Y)-$(NONE)-$$(X)-$(MYSQL_SERVICE_HOST)"), literal("MYSQL_SERVICE_PORT", "3306")],
            ..Container::default()
        };
        let services = [("MYSQL_SERVICE_HOST".to_owned(), "10.0.0.9".to_owned()), ("MYSQL_SERVICE_PORT".to_owned(), "1".to_owned())];
        let env = run(&c, &objects, &services).unwrap();
        assert_eq!(env["X"], "from-secret");
        assert_eq!(env["P_X"], "from-map");
        assert_eq!(env["Z"], "from-secret-y-$(NONE)-$(X)-10.0.0.9");
        assert_eq!(env["MYSQL_SERVICE_PORT"], "3306");
        assert!(!env.contains_key("bad=key"));
    }

    #[test]
    fn a_missing_object_names_itself_unless_it_is_optional() {
        let var = |optional, key: &str| EnvVar {
            name: "V".into(),
            value: String::new(),
            value_from: Some(EnvSource {
                config_map_key_ref: Some(KeyRef { name: "m".into(), key: key.into(), optional }),
                ..EnvSource::default()
            }),
        };
        let with = |v| Container { env: vec![v], ..Container::default() };
        let mut objects = Objects::default();
        assert_eq!(run(&with(var(false, "k")), &objects, &[]).unwrap_err().to_string(), "configmap \"m\" not found");
        assert_eq!(run(&with(var(true, "k")), &objects, &[]).unwrap(), BTreeMap::new());
        objects.0.insert((Referent::ConfigMap, "m".into()), data(&[("other", "1")]));
        assert_eq!(run(&with(var(false, "k")), &objects, &[]).unwrap_err().to_string(), "couldn't find key k in ConfigMap default/m");
        assert_eq!(run(&with(var(true, "k")), &objects, &[]).unwrap(), BTreeMap::new());
    }

    #[test]
    fn fields_of_the_pod_are_values() {
        let field = |name: &str, path: &str| EnvVar {
            name: name.into(),
            value: String::new(),
            value_from: Some(EnvSource {
                field_ref: Some(FieldRef { field_path: path.into(), ..FieldRef::default() }),
                ..EnvSource::default()
            }),
        };
        let c = Container {
            env: vec![field("A", "metadata.name"), field("B", "spec.nodeName"), field("C", "status.podIP"), literal("D", "$(A)")],
            ..Container::default()
        };
        let env = run(&c, &Objects::default(), &[]).unwrap();
        assert_eq!([&env["A"], &env["B"], &env["C"], &env["D"]], ["web", "node1", "10.1.2.3", "web"]);
    }

    #[test]
    fn commands_expand_over_the_final_environment() {
        let c = Container { command: vec!["sh".into(), "-c".into()], args: vec!["echo $(A) $$(A) $(B)".into()], ..Container::default() };
        let (command, args) = command(&c, &[("A".into(), "1".into())]);
        assert_eq!((command[0].as_str(), args[0].as_str()), ("sh", "echo 1 $(A) $(B)"));
    }
}
